// SPDX-License-Identifier: GPL-2.0-or-later
/* Block devices past the page cache, with data that can be computed elsewhere. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "probe.h"

#define SECTOR	512
#define CHUNK	(256UL * 1024)

/* The CRC of zlib and IEEE 802.3. */
static u32 crc32(u32 crc, const u8 *bytes, size_t length)
{
	static u32 table[256];

	if (!table[1]) {
		for (u32 i = 0; i < 256; i++) {
			u32 value = i;

			for (int bit = 0; bit < 8; bit++)
				value = value >> 1 ^ (value & 1 ? 0xedb88320U : 0);
			table[i] = value;
		}
	}
	crc = ~crc;
	while (length--)
		crc = crc >> 8 ^ table[(crc ^ *bytes++) & 0xff];
	return ~crc;
}

static int open_direct(const char *path, bool write, bool *direct)
{
	int mode = (write ? O_RDWR : O_RDONLY) | O_CLOEXEC;
	int fd = open(path, mode | O_DIRECT);

	*direct = fd >= 0;
	/* tmpfs has no O_DIRECT before Linux 6.6; say so and go on. */
	if (fd < 0 && errno == EINVAL)
		fd = open(path, mode);
	if (fd < 0)
		die("open %s", path);
	return fd;
}

static void move(int fd, bool write, u8 *bytes, size_t length, u64 offset, const char *path)
{
	while (length) {
		ssize_t got = write ? pwrite(fd, bytes, length, (off_t)offset) :
				      pread(fd, bytes, length, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			die("%s %s at 0x%llx", write ? "write" : "read", path, (ull)offset);
		if (!got)
			fail("%s ends at 0x%llx", path, (ull)offset);
		bytes += got;
		offset += (u64)got;
		length -= (size_t)got;
	}
}

static int run(int argc, char **argv)
{
	u64 seed = 0, offset, length, wrong = 0;
	bool given = false, direct, write, match = true;
	const struct opt opts[] = { { "pattern", OPT_NUMBER, &seed, &given } };
	u8 *buffer, *want;
	char *words[3];
	u32 crc = 0;
	int fd;

	if (!argc || (strcmp(argv[0], "read") && strcmp(argv[0], "write")))
		misuse("block read or block write");
	write = !strcmp(argv[0], "write");
	parse_words(argc - 1, argv + 1, opts, ARRAY_SIZE(opts), words, 3, 3);
	offset = parse_number("OFFSET", words[1]);
	length = parse_number("LENGTH", words[2]);
	if (offset % SECTOR || length % SECTOR || !length)
		misuse("OFFSET and LENGTH must be multiples of %d", SECTOR);
	if (write && !given)
		misuse("block write needs --pattern");
	buffer = aligned_alloc(PAGE, CHUNK);
	want = malloc(CHUNK);
	if (!buffer || !want)
		die("allocate");
	fd = open_direct(words[0], write, &direct);
	for (u64 done = 0; done < length; done += CHUNK) {
		size_t now = length - done < CHUNK ? length - done : CHUNK;

		if (given)
			pattern_fill(seed, offset + done, want, now);
		if (write)
			memcpy(buffer, want, now);
		move(fd, write, buffer, now, offset + done, words[0]);
		crc = crc32(crc, buffer, now);
		for (size_t i = 0; given && match && i < now; i++) {
			if (buffer[i] != want[i]) {
				match = false;
				wrong = offset + done + i;
			}
		}
	}
	if (write && fsync(fd))
		die("flush %s", words[0]);
	close(fd);
	printf("direct=%s\ncrc32=0x%08x\n", yes_no(direct), crc);
	if (!write && given)
		printf("match=%s\n", yes_no(match));
	if (!match)
		printf("first_diff=0x%llx\n", (ull)wrong);
	return ANSWERED;
}

const struct command block_command = {
	.name = "block",
	.summary = "read or write a block device past the page cache",
	.help =
	"  probe block read DEVICE OFFSET LENGTH [--pattern SEED]\n"
	"  probe block write DEVICE OFFSET LENGTH --pattern SEED\n"
	"\n"
	"Bytes, multiples of the device's sector (at least 512). The pattern is that of\n"
	"harness/model/pattern.py: byte O of the device is byte O of the pattern of SEED.\n"
	"Writes are flushed. crc32 is zlib's, of all that was read or written.\n"
	"  direct=yes|no        no: the file has no O_DIRECT\n"
	"  crc32=0x…\n"
	"  match=yes|no         read with --pattern; then first_diff=0x… (device offset) if no\n",
	.run = run,
};
