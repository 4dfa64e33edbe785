// SPDX-License-Identifier: GPL-2.0-or-later
/* Accesses of an exact width to mapped memory and to files, and what they run into. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "probe.h"

void access_note(struct access *access, u64 value)
{
	if (!access->done) {
		access->first = value;
		access->equal = true;
	}
	access->equal &= value == access->first;
	access->last = value;
	access->done++;
}

void access_print(const struct access *access)
{
	int digits = (int)access->width * 2;

	if (access->write)
		printf("written=0x%0*llx\n", digits, (ull)access->value);
	else if (access->done)
		printf("first=0x%0*llx\nlast=0x%0*llx\nequal=%s\n", digits, (ull)access->first,
		       digits, (ull)access->last, yes_no(access->equal));
	printf("done=%llu\n", (ull)access->done);
}

/* One instruction per access: load() and store() are volatile, nothing is merged. */
void access_memory(struct access *access, volatile void *where)
{
	while (access->done < access->count) {
		if (access->write) {
			store(where, access->width, access->value);
			access->done++;
		} else {
			access_note(access, load(where, access->width));
		}
	}
}

/*
 * One system call per access. The kernel makes one device access of that width out of it
 * (pci_resource_io(), pci_read_config(), vfio_pci_core_do_io_rw()).
 */
void access_file(struct access *access, int fd, u64 offset, const char *path)
{
	while (access->done < access->count) {
		u64 value = access->write ? access->value : 0;
		ssize_t got;

		/* The low bytes come first: PCI and the machines it is tested on agree. */
		if (access->write)
			got = pwrite(fd, &value, access->width, (off_t)offset);
		else
			got = pread(fd, &value, access->width, (off_t)offset);
		if (got < 0)
			die("%s %s at 0x%llx", access->write ? "write" : "read", path, (ull)offset);
		if (got != (ssize_t)access->width)
			fail("%s %s at 0x%llx: %zd bytes of %u", access->write ? "write" : "read",
			     path, (ull)offset, got, access->width);
		if (access->write)
			access->done++;
		else
			access_note(access, value);
	}
}

static sigjmp_buf before_fault;

static void on_sigbus(int number)
{
	(void)number;
	siglongjmp(before_fault, 1);
}

/* Call work(arg); false if it ran into SIGBUS. */
bool survives(void (*work)(void *arg), void *arg)
{
	struct sigaction action = { .sa_handler = on_sigbus }, old;
	bool alive;

	sigaction(SIGBUS, &action, &old);
	alive = !sigsetjmp(before_fault, 1);
	if (alive)
		work(arg);
	sigaction(SIGBUS, &old, NULL);
	return alive;
}

/*
 * A sysfs resourceN maps whole pages, from the page in which the BAR starts. A BAR smaller
 * than a page may start inside it (rtl8139): the distance must be added.
 */
static u64 distance_in_page(const char *path)
{
	const char *name = strrchr(path, '/');
	size_t prefix = name ? (size_t)(name - path) + 1 : 0;
	char table[4096], line[128];
	unsigned int index;
	ull start = 0;
	FILE *file;

	if (sscanf(path + prefix, "resource%u", &index) != 1 || prefix > sizeof(table) - 16)
		return 0;
	snprintf(table, sizeof(table), "%.*sresource", (int)prefix, path);
	file = fopen(table, "re");
	if (!file)
		return 0;
	for (unsigned int i = 0; i <= index; i++)
		if (!fgets(line, sizeof(line), file))
			line[0] = '\0';
	if (sscanf(line, "%llx", &start) != 1)
		start = 0;
	fclose(file);
	return start % PAGE;
}

volatile u8 *map_file(const char *path, u64 offset, u64 length, bool write)
{
	/* O_SYNC makes /dev/mem uncached; sysfs resources are so anyway. */
	int fd = open(path, (write ? O_RDWR : O_RDONLY) | O_SYNC | O_CLOEXEC);
	u64 begin, aligned;
	u8 *base;

	if (fd < 0)
		die("open %s", path);
	begin = offset + distance_in_page(path);
	aligned = begin & ~(PAGE - 1);
	base = mmap(NULL, begin - aligned + length, PROT_READ | (write ? PROT_WRITE : 0),
		    MAP_SHARED, fd, (off_t)aligned);
	if (base == MAP_FAILED)
		die("map %s at 0x%llx", path, (ull)offset);
	close(fd);
	return base + (begin - aligned);
}
