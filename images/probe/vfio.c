// SPDX-License-Identifier: GPL-2.0-or-later
/* What user space may do with a function bound to vfio-pci. */
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "probe.h"

static const struct vfio_info_cap_header *capability(const struct vfio_region_info *info,
						     u32 offset)
{
	if (!(info->flags & VFIO_REGION_INFO_FLAG_CAPS) || !offset || offset >= info->argsz)
		return NULL;
	return (const void *)((const u8 *)info + offset);
}

static void print_region(const struct vfio_region_info *info)
{
	const struct vfio_info_cap_header *cap;
	const char *comma = "";

	printf("region=%u size=0x%llx flags=0x%x read=%s write=%s mmap=%s caps=", info->index,
	       (ull)info->size, info->flags, yes_no(info->flags & VFIO_REGION_INFO_FLAG_READ),
	       yes_no(info->flags & VFIO_REGION_INFO_FLAG_WRITE),
	       yes_no(info->flags & VFIO_REGION_INFO_FLAG_MMAP));
	for (cap = capability(info, info->cap_offset); cap; cap = capability(info, cap->next)) {
		printf("%s%u", comma, cap->id);
		comma = ",";
	}
	putchar('\n');
	for (cap = capability(info, info->cap_offset); cap; cap = capability(info, cap->next)) {
		const struct vfio_region_info_cap_sparse_mmap *sparse = (const void *)cap;

		if (cap->id != VFIO_REGION_INFO_CAP_SPARSE_MMAP)
			continue;
		for (u32 i = 0; i < sparse->nr_areas; i++)
			printf("area=%u of_region=%u offset=0x%llx size=0x%llx\n", i, info->index,
			       (ull)sparse->areas[i].offset, (ull)sparse->areas[i].size);
	}
}

static int info(int argc, char **argv)
{
	struct vfio vfio;
	char *words[1];
	u16 command;

	parse_words(argc, argv, NULL, 0, words, 1, 1);
	vfio_open(&vfio, words[0]);
	/* Before anything else is done to the device: RST-09 is about the open alone. */
	command = vfio_command_read(&vfio);
	printf("command=0x%04x\nbus_master=%d\nmemory=%d\n", command,
	       !!(command & PCI_COMMAND_MASTER), !!(command & PCI_COMMAND_MEMORY));
	printf("flags=0x%x\nreset=%s\nregions=%u\nirqs=%u\n", vfio.flags,
	       yes_no(vfio.flags & VFIO_DEVICE_FLAGS_RESET), vfio.num_regions, vfio.num_irqs);
	for (u32 i = 0; i < vfio.num_regions; i++) {
		struct vfio_region_info *region = vfio_region(&vfio, i);

		if (!region)
			continue;
		print_region(region);
		free(region);
	}
	for (u32 i = 0; i < vfio.num_irqs; i++) {
		struct vfio_irq_info irq = { .argsz = sizeof(irq), .index = i };

		if (!ioctl(vfio.device, VFIO_DEVICE_GET_IRQ_INFO, &irq))
			printf("irq=%u count=%u flags=0x%x\n", i, irq.count, irq.flags);
	}
	return ANSWERED;
}

static int touch(bool write, int argc, char **argv)
{
	u64 width = 4, count = 1, value = 0, index, offset;
	bool given = false;
	const struct opt opts[] = {
		{ "width", OPT_NUMBER, &width, NULL },
		{ "count", OPT_NUMBER, &count, NULL },
		{ "value", OPT_NUMBER, &value, &given },
	};
	struct vfio_region_info *region;
	struct access access;
	struct vfio vfio;
	char *words[3];

	parse_words(argc, argv, opts, ARRAY_SIZE(opts), words, 3, 3);
	if (write != given)
		misuse(write ? "vfio write needs --value" : "vfio read takes no --value");
	index = parse_number("REGION", words[1]);
	offset = parse_number("OFFSET", words[2]);
	access = (struct access) {
		.width = (unsigned int)parse_width(width, offset, 8),
		.write = write,
		.count = count,
		.value = value,
	};
	vfio_open(&vfio, words[0]);
	region = vfio_region(&vfio, (u32)index);
	if (!region || !region->size)
		fail("%s has no region %llu", words[0], (ull)index);
	if (index < VFIO_PCI_ROM_REGION_INDEX)
		vfio_command_change(&vfio, PCI_COMMAND_MEMORY | PCI_COMMAND_IO, 0);
	access_file(&access, vfio.device, region->offset + offset, words[0]);
	access_print(&access);
	return ANSWERED;
}

struct look {
	volatile u8 *where;
	u32 value;
};

static void look_at(void *arg)
{
	struct look *look = arg;

	look->value = (u32)load(look->where, 4);
}

static void print_look(const char *name, struct look *look)
{
	if (survives(look_at, look))
		printf("%s=0x%08x\n", name, look->value);
	else
		printf("%s=sigbus\n", name);
}

static int map(int argc, char **argv)
{
	u64 index, offset, length;
	bool disabled = false;
	const struct opt opts[] = { { "memory-disabled", OPT_FLAG, &disabled, NULL } };
	struct look look;
	struct vfio vfio;
	char *words[4];

	parse_words(argc, argv, opts, ARRAY_SIZE(opts), words, 4, 4);
	index = parse_number("REGION", words[1]);
	offset = parse_number("OFFSET", words[2]);
	length = parse_number("LENGTH", words[3]);
	parse_width(4, offset, 4);
	if (length < 4)
		misuse("LENGTH must be 4 or more");
	vfio_open(&vfio, words[0]);
	vfio_command_change(&vfio, PCI_COMMAND_MEMORY, 0);
	look.where = vfio_map(&vfio, (u32)index, offset, length, false);
	if (!look.where) {
		printf("mapped=no error=%s\n", error_name(errno));
		return ANSWERED;
	}
	puts("mapped=yes");
	/* The page is in the page table when memory goes off: it must be taken out (zapped). */
	print_look("value", &look);
	if (disabled) {
		vfio_command_change(&vfio, 0, PCI_COMMAND_MEMORY);
		print_look("disabled", &look);
		vfio_command_change(&vfio, PCI_COMMAND_MEMORY, 0);
		print_look("restored", &look);
	}
	return ANSWERED;
}

static int reset(int argc, char **argv)
{
	struct vfio vfio;
	char *words[1];

	parse_words(argc, argv, NULL, 0, words, 1, 1);
	vfio_open(&vfio, words[0]);
	if (!(vfio.flags & VFIO_DEVICE_FLAGS_RESET)) {
		puts("reset=unsupported");
		return ANSWERED;
	}
	if (ioctl(vfio.device, VFIO_DEVICE_RESET))
		die("reset %s", words[0]);
	puts("reset=ok");
	return ANSWERED;
}

static int run(int argc, char **argv)
{
	const char *what = argc ? argv[0] : "";

	argc--;
	argv++;
	if (!strcmp(what, "info"))
		return info(argc, argv);
	if (!strcmp(what, "read") || !strcmp(what, "write"))
		return touch(!strcmp(what, "write"), argc, argv);
	if (!strcmp(what, "map"))
		return map(argc, argv);
	if (!strcmp(what, "edu-dma"))
		return vfio_edu_dma(argc, argv);
	if (!strcmp(what, "reset"))
		return reset(argc, argv);
	if (!strcmp(what, "drive"))
		return vfio_drive(argc, argv);
	misuse("vfio info, read, write, map, edu-dma, reset or drive");
}

const struct command vfio_command = {
	.name = "vfio",
	.summary = "what user space may do with a function bound to vfio-pci",
	.help =
	"  probe vfio info BDF\n"
	"      command=0x… bus_master=0|1 memory=0|1     just after the open, a line each\n"
	"      flags=0x… reset=yes|no regions=N irqs=N   a line each\n"
	"      region=N size=0x… flags=0x… read=yes write=yes mmap=yes caps=1,3   (1 sparse,\n"
	"      area=N of_region=N offset=0x… size=0x…             3 MSI-X may be mapped)\n"
	"      irq=N count=N flags=0x…\n"
	"  probe vfio read BDF REGION OFFSET [--width 1|2|4|8] [--count N]\n"
	"  probe vfio write BDF REGION OFFSET --value V [--width 1|2|4|8] [--count N]\n"
	"      first=0x… last=0x… equal=yes|no done=N   a line each; written=0x… done=N\n"
	"      One pread or pwrite each; memory and I/O space are enabled before.\n"
	"  probe vfio map BDF REGION OFFSET LENGTH [--memory-disabled]\n"
	"      mapped=yes, or mapped=no error=EINVAL\n"
	"      value=0x…|sigbus       the first word; then with --memory-disabled:\n"
	"      disabled=0x…|sigbus    after COMMAND.MSE was cleared\n"
	"      restored=0x…|sigbus    after it was set again\n"
	"  probe vfio edu-dma BDF --iova A [--stray B] [--control] [--mask64] [--timeout S]\n"
	"      inside=match|differs   roundtrip through an edu device at IOVA A, which is mapped\n"
	"      bystander=0x…          physical address of a page that is not; default of --stray\n"
	"      stray=0x…              IOVA B, which is not mapped:\n"
	"      stray_read=blocked|leaked     the device read it (leaked: got the bystander)\n"
	"      stray_write=blocked|reached   the device wrote it (reached: a page changed)\n"
	"      --control maps the bystander at B: both must then be leaked and reached\n"
	"  probe vfio reset BDF\n"
	"      reset=ok|unsupported\n"
	"  probe vfio drive BDF\n"
	"      ready=yes, then obeys stdin, a line for a line, until its end:\n"
	"      map IOVA [r|w|rw]         iova=0x… phys=0x… page=N   a page of zeroes for the\n"
	"                 device to read, write or both, between two pages that it is not given\n"
	"      changed N                 changed=BYTES first=OFFSET last=OFFSET   of page N and\n"
	"                 its neighbours, since they were mapped or put; decimal, -4096 to 8191\n"
	"      unmap IOVA                unmapped=0x…\n"
	"      put IOVA HEX              put=N               bytes of such a page\n"
	"      get IOVA LENGTH           data=HEX\n"
	"      read REGION OFFSET WIDTH  value=0x…\n"
	"      write REGION OFFSET WIDTH VALUE   written=0x…\n"
	"      interrupts intx|msi|msix N        vectors=N   (0: off)\n"
	"      wait VECTOR MILLISECONDS  count=N             how often it came, 0 if it did not\n"
	"      master 0|1                command=0x…\n"
	"      reset                     reset=ok\n"
	"      again                     again=ok   closed, and opened in another container\n"
	"      What cannot be is answered by error=ERRNO, error=range, error=command …\n",
	.run = run,
};
