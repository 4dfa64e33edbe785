// SPDX-License-Identifier: GPL-2.0-or-later
/* DMA of an edu device inside and outside of what its IOMMU domain maps. */
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "probe.h"

#define INSIDE_SEED	1
#define BYSTANDER_SEED	2
#define STRAY_SEED	3

static void map_dma(const struct vfio *vfio, const struct page *page, u64 iova)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)page->virt,
		.iova = iova,
		.size = PAGE,
	};

	if (ioctl(vfio->container, VFIO_IOMMU_MAP_DMA, &map))
		die("map IOVA 0x%llx", (ull)iova);
}

static bool holds(const struct page *page, u64 seed)
{
	u8 want[PAGE];

	pattern_fill(seed, 0, want, PAGE);
	/* A device wrote the page behind the compiler's back. */
	__asm__ __volatile__("" : : : "memory");
	return !memcmp(page->virt, want, PAGE);
}

static void inside(const struct edu *edu, const struct page *own, u64 iova)
{
	pattern_fill(INSIDE_SEED, 0, own->virt, PAGE);
	edu_transfer(edu, EDU_TO_DEVICE, iova, EDU_BUFFER, PAGE);
	memset(own->virt, 0, PAGE);
	edu_transfer(edu, EDU_FROM_DEVICE, iova, EDU_BUFFER, PAGE);
	printf("inside=%s\n", holds(own, INSIDE_SEED) ? "match" : "differs");
}

static void stray(const struct edu *edu, const struct page *own, const struct page *bystander,
		  u64 iova, u64 outside)
{
	bool leaked, reached;

	/* Read: what the device then holds, it hands over through the mapped page. */
	edu_transfer(edu, EDU_TO_DEVICE, outside, EDU_BUFFER, PAGE);
	edu_transfer(edu, EDU_FROM_DEVICE, iova, EDU_BUFFER, PAGE);
	leaked = holds(own, BYSTANDER_SEED);
	printf("stray_read=%s\n", leaked ? "leaked" : "blocked");

	/* Write: data found nowhere else, so that any landing changes one of our pages. */
	pattern_fill(STRAY_SEED, 0, own->virt, PAGE);
	edu_transfer(edu, EDU_TO_DEVICE, iova, EDU_BUFFER, PAGE);
	pattern_fill(INSIDE_SEED, 0, own->virt, PAGE);
	edu_transfer(edu, EDU_FROM_DEVICE, outside, EDU_BUFFER, PAGE);
	reached = !holds(own, INSIDE_SEED) || !holds(bystander, BYSTANDER_SEED);
	printf("stray_write=%s\n", reached ? "reached" : "blocked");
}

int vfio_edu_dma(int argc, char **argv)
{
	u64 timeout = 5000, iova = 0, outside = 0;
	bool iova_given = false, outside_given = false, mask64 = false, control = false;
	const struct opt opts[] = {
		{ "iova", OPT_NUMBER, &iova, &iova_given },
		{ "stray", OPT_NUMBER, &outside, &outside_given },
		{ "control", OPT_FLAG, &control, NULL },
		{ "mask64", OPT_FLAG, &mask64, NULL },
		{ "timeout", OPT_SECONDS, &timeout, NULL },
	};
	struct page pages[2];	/* own, bystander */
	struct vfio vfio;
	struct edu edu = { 0 };
	char *words[1];

	parse_words(argc, argv, opts, ARRAY_SIZE(opts), words, 1, 1);
	if (!iova_given || iova % PAGE)
		misuse("vfio edu-dma needs --iova, a multiple of 0x%lx", PAGE);
	/* Both pages low: the bystander must be an address that the device can say. */
	pages_hold(pages, 2, 0, mask64 ? 0 : EDU_MASK_LIMIT);
	pattern_fill(BYSTANDER_SEED, 0, pages[1].virt, PAGE);
	if (!outside_given)
		outside = pages[1].phys;
	if (control && outside % PAGE)
		misuse("--control needs a --stray that is a multiple of 0x%lx", PAGE);
	if (outside < iova + PAGE && iova < outside + PAGE)
		misuse("--stray 0x%llx is inside the mapped page", (ull)outside);
	if (!mask64 && (iova | outside) >= EDU_MASK_LIMIT)
		misuse("addresses from 256 MiB up need a device with dma_mask set, and --mask64");

	vfio_open(&vfio, words[0]);
	edu.timeout_ms = timeout;
	vfio_command_change(&vfio, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0);
	edu.registers = vfio_map(&vfio, 0, 0, PAGE, true);
	if (!edu.registers)
		die("map region 0 of %s", words[0]);
	edu_check_id(&edu);
	map_dma(&vfio, &pages[0], iova);
	/* The check must be able to fail: with the bystander mapped, both strays must land. */
	if (control)
		map_dma(&vfio, &pages[1], outside);
	inside(&edu, &pages[0], iova);
	printf("bystander=0x%llx\nstray=0x%llx\n", (ull)pages[1].phys, (ull)outside);
	stray(&edu, &pages[0], &pages[1], iova, outside);
	return ANSWERED;
}
