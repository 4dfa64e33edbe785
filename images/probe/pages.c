// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Locked pages whose physical address is known, for DMA to hit or to miss.
 *
 * mlock() keeps a page in memory but compaction may still move it, so whoever relies on an
 * address asks for it again (canary: moved=).
 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "probe.h"

#define CHUNK		256UL		/* pages taken at a time while looking for fitting ones */
#define MOST		(2UL << 18)	/* pages taken in all: 2 GiB, others need memory too */
#define PRESENT		(1ULL << 63)
#define PFN_MASK	((1ULL << 55) - 1)

/* Documentation/admin-guide/mm/pagemap.rst; needs CAP_SYS_ADMIN. */
u64 physical_address(const void *virt)
{
	static int fd = -1;
	u64 entry = 0;

	if (fd < 0)
		fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die("open /proc/self/pagemap");
	if (pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)virt / PAGE * 8)) != sizeof(entry))
		die("read /proc/self/pagemap");
	if (!(entry & PRESENT))
		fail("page %p is not in memory", virt);
	if (!(entry & PFN_MASK))
		fail("physical addresses are hidden: not root");
	return (entry & PFN_MASK) * PAGE + (uintptr_t)virt % PAGE;
}

static u8 *take(size_t count)
{
	u8 *base = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			-1, 0);

	if (base == MAP_FAILED)
		die("allocate %zu pages", count);
	/* Single pages come from wherever some are left, huge ones only from the large holes. */
	madvise(base, count * PAGE, MADV_NOHUGEPAGE);
	/* The pages are written to by their user anyway: not inherited, not shared, not merged. */
	madvise(base, count * PAGE, MADV_DONTFORK);
	if (mlock(base, count * PAGE))
		die("lock %zu pages", count);
	return base;
}

/*
 * Fill "pages" with zeroed locked pages, all of them at or above "above" and, when that is not
 * 0, below "below". The kernel cannot be asked for memory at an address, so take memory until
 * enough of it fits and hold the rest meanwhile, or the same pages would come again.
 */
void pages_hold(struct page *pages, size_t count, u64 above, u64 below)
{
	struct sysinfo info;
	size_t found = 0, taken = 0, limit, chunks = 0;
	size_t chunk = above || below ? CHUNK : count;
	static u8 *bases[MOST / CHUNK];

	sysinfo(&info);
	limit = (size_t)((u64)info.freeram * info.mem_unit / PAGE / 4 * 3);
	if (limit > MOST)
		limit = MOST;
	while (found < count) {
		u8 *base;

		if (chunks && taken + chunk > limit)
			fail("no %zu pages between 0x%llx and 0x%llx among %zu free ones", count,
			     (ull)above, (ull)below, taken);
		base = take(chunk);
		bases[chunks++] = base;
		taken += chunk;
		for (size_t i = 0; i < chunk && found < count; i++) {
			u64 phys = physical_address(base + i * PAGE);

			if (phys >= above && (!below || phys + PAGE <= below))
				pages[found++] = (struct page) { base + i * PAGE, phys };
		}
	}
	/* Give back what was only in the way; "pages" is in the order of the addresses taken. */
	for (size_t c = 0, next = 0; c < chunks; c++) {
		for (size_t i = 0; i < chunk; i++) {
			u8 *virt = bases[c] + i * PAGE;

			if (next < count && pages[next].virt == virt)
				next++;
			else
				munmap(virt, PAGE);
		}
	}
}

/* The first of "count" neighbours, upwards (step 1) or downwards (-1) in virtual addresses. */
static bool neighbours(u8 *base, size_t first, size_t count, int step)
{
	u64 phys = physical_address(base + first * PAGE);

	for (size_t i = 1; i < count; i++)
		if (physical_address(base + (first + (size_t)((long)i * step)) * PAGE) !=
		    phys + i * PAGE)
			return false;
	return true;
}

/*
 * Fill "pages" with zeroed locked pages whose physical addresses follow each other. A kernel
 * that has large blocks left hands out their pages in order, up or down.
 */
void pages_hold_neighbours(struct page *pages, size_t count)
{
	for (int tries = 0; tries < 16; tries++) {
		u8 *base = take(CHUNK);	/* one that does not fit is held, or it would come again */

		for (size_t first = 0; first < CHUNK; first++) {
			int step = 0;

			if (first + count <= CHUNK && neighbours(base, first, count, 1))
				step = 1;
			else if (first + 1 >= count && neighbours(base, first, count, -1))
				step = -1;
			if (!step)
				continue;
			for (size_t i = 0; i < count; i++) {
				u8 *virt = base + (first + (size_t)((long)i * step)) * PAGE;

				pages[i] = (struct page) { virt, physical_address(virt) };
			}
			for (size_t i = 0; i < CHUNK; i++) {
				u8 *virt = base + i * PAGE;
				bool used = false;

				for (size_t k = 0; k < count; k++)
					used |= pages[k].virt == virt;
				if (!used)
					munmap(virt, PAGE);
			}
			return;
		}
	}
	fail("no %zu pages are neighbours in physical memory", count);
}
