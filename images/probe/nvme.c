// SPDX-License-Identifier: GPL-2.0-or-later
/* Admin commands of an NVMe controller that has its driver, as nvme-cli gives them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/nvme_ioctl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "probe.h"

#define TIMEOUT_MS	10000
#define MOST		65536

/* Pairs of hex digits to the first bytes of "data". */
static void take_hex(const char *text, u8 *data)
{
	size_t length = strlen(text);

	if (length % 2 || length / 2 > MOST || strspn(text, "0123456789abcdef") != length)
		misuse("--send is pairs of small hex digits, at most %d", MOST);
	for (size_t i = 0; i < length; i += 2) {
		char pair[3] = { text[i], text[i + 1], 0 };

		data[i / 2] = (u8)strtoul(pair, NULL, 16);
	}
}

static int run(int argc, char **argv)
{
	u64 nsid = 0, cdw10 = 0, cdw11 = 0, length = 0;
	char *words[2], *send = NULL;
	const struct opt opts[] = {
		{ "nsid", OPT_NUMBER, &nsid, NULL }, { "cdw10", OPT_NUMBER, &cdw10, NULL },
		{ "cdw11", OPT_NUMBER, &cdw11, NULL }, { "data", OPT_NUMBER, &length, NULL },
		{ "send", OPT_TEXT, &send, NULL },
	};
	struct nvme_passthru_cmd command = { .timeout_ms = TIMEOUT_MS };
	int fd, status;
	u64 opcode;
	u8 *data;

	if (!argc || strcmp(argv[0], "admin"))
		misuse("nvme admin");
	parse_words(argc - 1, argv + 1, opts, ARRAY_SIZE(opts), words, 2, 2);
	opcode = parse_number("OPCODE", words[1]);
	if (opcode > 0xff)
		misuse("OPCODE is one byte");
	if ((nsid | cdw10 | cdw11) >> 32)
		misuse("--nsid, --cdw10 and --cdw11 have 32 bits");
	if (length > MOST)
		misuse("--data is at most %d", MOST);
	data = aligned_alloc(PAGE, MOST);
	if (!data)
		die("allocate");
	memset(data, 0, MOST);
	if (send)
		take_hex(send, data);
	fd = open(words[0], O_RDWR | O_CLOEXEC);
	if (fd < 0)
		die("open %s", words[0]);
	command.opcode = (u8)opcode;
	command.nsid = (u32)nsid;
	command.cdw10 = (u32)cdw10;
	command.cdw11 = (u32)cdw11;
	command.addr = length ? (u64)(uintptr_t)data : 0;
	command.data_len = (u32)length;
	status = ioctl(fd, NVME_IOCTL_ADMIN_CMD, &command);
	if (status < 0)
		die("command 0x%llx of %s", (ull)opcode, words[0]);
	close(fd);
	printf("status=0x%x result=0x%x", (unsigned int)status, command.result);
	if (length && !send && !status) {
		printf(" data=");
		for (u64 i = 0; i < length; i++)
			printf("%02x", data[i]);
	}
	putchar('\n');
	return ANSWERED;
}

const struct command nvme_command = {
	.name = "nvme",
	.summary = "give an NVMe controller an admin command",
	.help =
	"  probe nvme admin DEVICE OPCODE [--nsid N] [--cdw10 N] [--cdw11 N]\n"
	"                   [--data LENGTH [--send HEX]]\n"
	"\n"
	"DEVICE is one of /dev/nvme0, …, which the driver has. LENGTH bytes are read from it; or\n"
	"are given to it, those that HEX says first, then zeroes: the opcode says which.\n"
	"  status=0x…           of the command (NVMe 1.4, figure 125); 0 is success\n"
	"  result=0x…           dword 0 of the completion\n"
	"  data=HEX             without --send, if the command succeeded\n",
	.run = run,
};
