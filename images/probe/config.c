// SPDX-License-Identifier: GPL-2.0-or-later
/* Accesses to PCI configuration space through sysfs. */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "probe.h"

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
	char path[256];
	char *words[2];
	int fd;

	if (!argc || (strcmp(argv[0], "read") && strcmp(argv[0], "write")))
		misuse("config read or config write");
	write = !strcmp(argv[0], "write");
	parse_words(argc - 1, argv + 1, opts, ARRAY_SIZE(opts), words, 2, 2);
	if (write != given)
		misuse(write ? "config write needs --value" : "config read takes no --value");
	offset = parse_number("OFFSET", words[1]);
	access = (struct access) {
		.width = (unsigned int)parse_width(width, offset, 4),
		.write = write,
		.count = count,
		.value = value,
	};
	if (strchr(words[0], '/'))
		snprintf(path, sizeof(path), "%s", words[0]);
	else
		snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", words[0]);
	fd = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	if (fd < 0)
		die("open %s", path);
	access_file(&access, fd, offset, path);
	close(fd);
	access_print(&access);
	return ANSWERED;
}

const struct command config_command = {
	.name = "config",
	.summary = "accesses to PCI configuration space",
	.help =
	"  probe config read BDF OFFSET [--width 1|2|4] [--count N]\n"
	"  probe config write BDF OFFSET --value V [--width 1|2|4] [--count N]\n"
	"\n"
	"BDF has its domain (0000:01:00.0); a word with a slash is the file itself.\n"
	"  first=0x… last=0x… equal=yes|no done=N   a line each; written=0x… done=N for write\n",
	.run = run,
};
