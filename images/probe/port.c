// SPDX-License-Identifier: GPL-2.0-or-later
/* Accesses to I/O ports, by the sysfs file of a port BAR or by absolute address. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#ifdef __x86_64__
#include <sys/io.h>
#endif

#include "probe.h"

#ifdef __x86_64__
/* Not /dev/port: it splits every access into bytes, and a count of exits would be wrong. */
static void absolute(struct access *access, u64 port)
{
	if (port + access->width > 0x10000)
		misuse("port 0x%llx is above 0xffff", (ull)port);
	if (ioperm(port, access->width, 1))
		die("ioperm 0x%llx", (ull)port);
	while (access->done < access->count) {
		u16 at = (u16)port;

		if (access->write) {
			switch (access->width) {
			case 1: outb((u8)access->value, at); break;
			case 2: outw((u16)access->value, at); break;
			default: outl((u32)access->value, at); break;
			}
			access->done++;
			continue;
		}
		switch (access->width) {
		case 1: access_note(access, inb(at)); break;
		case 2: access_note(access, inw(at)); break;
		default: access_note(access, inl(at)); break;
		}
	}
}
#else
static void absolute(struct access *access, u64 port)
{
	fail("port 0x%llx, width %u: this machine has no I/O ports", (ull)port, access->width);
}
#endif

static int run(int argc, char **argv)
{
	u64 width = 4, count = 1, value = 0, offset;
	bool given = false, write;
	const struct opt opts[] = {
		{ "width", OPT_NUMBER, &width, NULL },
		{ "count", OPT_NUMBER, &count, NULL },
		{ "value", OPT_NUMBER, &value, &given },
	};
	struct access access;
	char *words[2];
	int fd;

	if (!argc || (strcmp(argv[0], "read") && strcmp(argv[0], "write")))
		misuse("port read or port write");
	write = !strcmp(argv[0], "write");
	parse_words(argc - 1, argv + 1, opts, ARRAY_SIZE(opts), words, 2, 2);
	if (write != given)
		misuse(write ? "port write needs --value" : "port read takes no --value");
	offset = parse_number("OFFSET", words[1]);
	access = (struct access) {
		.width = (unsigned int)parse_width(width, offset, 4),
		.write = write,
		.count = count,
		.value = value,
	};
	if (words[0][0] == '@') {
		absolute(&access, parse_number("ADDRESS", words[0] + 1) + offset);
	} else {
		fd = open(words[0], (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
		if (fd < 0)
			die("open %s", words[0]);
		access_file(&access, fd, offset, words[0]);
		close(fd);
	}
	access_print(&access);
	return ANSWERED;
}

const struct command port_command = {
	.name = "port",
	.summary = "accesses to I/O ports (sysfs resourceN of a port BAR, or @ADDRESS)",
	.help =
	"  probe port read FILE|@ADDRESS OFFSET [--width 1|2|4] [--count N]\n"
	"  probe port write FILE|@ADDRESS OFFSET --value V [--width 1|2|4] [--count N]\n"
	"\n"
	"FILE is read or written by one system call per access; @ADDRESS + OFFSET is an absolute\n"
	"port, touched by in and out instructions.\n"
	"  first=0x… last=0x… equal=yes|no done=N   a line each; written=0x… done=N for write\n",
	.run = run,
};
