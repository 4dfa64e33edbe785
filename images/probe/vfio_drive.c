// SPDX-License-Identifier: GPL-2.0-or-later
/* A driver in user space whose hands are here and whose head is who writes to stdin. */
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "probe.h"

#define MOST_PAGES	64
#define MOST_VECTORS	256
#define MOST_WORDS	6
#define GUARD		0x5a	/* in the bytes before and behind a page */

/* A page for the device between two that it is not given, neighbours in physical memory. */
struct mapping {
	struct page pages[3];
	u8 *known;		/* what the three held when they were last written by us */
	u64 iova;
	bool mapped;
};

static u8 *own(const struct mapping *mapping)
{
	return mapping->pages[1].virt;
}

static struct mapping mappings[MOST_PAGES];
static int vectors[MOST_VECTORS];
static u32 nr_vectors, vector_index;

static const char *const vector_kinds[] = {
	[VFIO_PCI_INTX_IRQ_INDEX] = "intx",
	[VFIO_PCI_MSI_IRQ_INDEX] = "msi",
	[VFIO_PCI_MSIX_IRQ_INDEX] = "msix",
};

/* Every line gets exactly one line back; what the kernel refuses is an answer too. */
static void refused(void)
{
	printf("error=%s\n", error_name(errno));
}

static struct mapping *mapping_at(u64 iova)
{
	for (size_t i = 0; i < MOST_PAGES; i++)
		if (mappings[i].mapped && iova - mappings[i].iova < PAGE)
			return &mappings[i];
	return NULL;
}

/* A fresh page while there is one: what had an IOVA before can still be looked at. */
static struct mapping *unused(void)
{
	struct mapping *found = NULL;

	for (size_t i = MOST_PAGES; i--;)
		if (!mappings[i].mapped && (!found || !own(&mappings[i]) || own(found)))
			found = &mappings[i];
	return found;
}

static void note(const struct mapping *mapping)
{
	for (size_t i = 0; i < ARRAY_SIZE(mapping->pages); i++)
		memcpy(mapping->known + i * PAGE, mapping->pages[i].virt, PAGE);
}

static void map(const struct vfio *vfio, u64 iova, const char *access)
{
	struct vfio_iommu_type1_dma_map request = {
		.argsz = sizeof(request),
		.iova = iova,
		.size = PAGE,
	};
	struct mapping *mapping = unused();

	if (!mapping) {
		puts("error=full");
		return;
	}
	if (strchr(access, 'r'))
		request.flags |= VFIO_DMA_MAP_FLAG_READ;
	if (strchr(access, 'w'))
		request.flags |= VFIO_DMA_MAP_FLAG_WRITE;
	if (!own(mapping)) {
		pages_hold_neighbours(mapping->pages, ARRAY_SIZE(mapping->pages));
		mapping->known = malloc(ARRAY_SIZE(mapping->pages) * PAGE);
		if (!mapping->known)
			die("allocate");
	}
	memset(mapping->pages[0].virt, GUARD, PAGE);
	memset(own(mapping), 0, PAGE);
	memset(mapping->pages[2].virt, GUARD, PAGE);
	note(mapping);
	request.vaddr = (uintptr_t)own(mapping);
	if (ioctl(vfio->container, VFIO_IOMMU_MAP_DMA, &request)) {
		refused();
		return;
	}
	mapping->iova = iova;
	mapping->mapped = true;
	printf("iova=0x%llx phys=0x%llx page=%zu\n", (ull)iova, (ull)mapping->pages[1].phys,
	       (size_t)(mapping - mappings));
}

/* What the device changed: offsets count from the start of its page, guards included. */
static void changed(u64 number)
{
	const struct mapping *mapping = &mappings[number];
	long first = 0, last = 0;
	unsigned int bytes = 0;

	if (number >= MOST_PAGES || !own(mapping)) {
		puts("error=range");
		return;
	}
	for (long at = 0; at < (long)(ARRAY_SIZE(mapping->pages) * PAGE); at++) {
		if ((u8)load(mapping->pages[at / (long)PAGE].virt + at % (long)PAGE, 1) ==
		    mapping->known[at])
			continue;
		last = at - (long)PAGE;
		if (!bytes++)
			first = last;
	}
	printf("changed=%u first=%ld last=%ld\n", bytes, first, last);
}

static void unmap(const struct vfio *vfio, u64 iova)
{
	struct vfio_iommu_type1_dma_unmap request = {
		.argsz = sizeof(request), .iova = iova, .size = PAGE,
	};
	struct mapping *mapping = mapping_at(iova);

	if (!mapping) {
		puts("error=range");
		return;
	}
	if (ioctl(vfio->container, VFIO_IOMMU_UNMAP_DMA, &request)) {
		refused();
		return;
	}
	mapping->mapped = false;
	printf("unmapped=0x%llx\n", (ull)request.size);
}

/* The page is the driver's own: it may be looked at mapped or not, at the IOVA it last had. */
static struct mapping *own_mapping(u64 iova, u64 length)
{
	struct mapping *found = mapping_at(iova);

	for (size_t i = 0; i < MOST_PAGES && !found; i++)
		if (own(&mappings[i]) && iova - mappings[i].iova < PAGE)
			found = &mappings[i];
	if (found && length <= PAGE - (iova - found->iova))
		return found;
	puts("error=range");
	return NULL;
}

static void put(u64 iova, const char *hex)
{
	size_t length = strlen(hex) / 2;
	const struct mapping *mapping = own_mapping(iova, length);
	u8 *bytes;

	if (!mapping)
		return;
	bytes = own(mapping) + (iova - mapping->iova);
	for (size_t i = 0; i < length; i++) {
		char digits[3] = { hex[2 * i], hex[2 * i + 1], '\0' };

		store(bytes + i, 1, strtoul(digits, NULL, 16));
	}
	note(mapping);
	printf("put=%zu\n", length);
}

static void get(u64 iova, u64 length)
{
	const struct mapping *mapping = own_mapping(iova, length);

	if (!mapping)
		return;
	fputs("data=", stdout);
	for (u64 i = 0; i < length; i++)
		printf("%02x", (unsigned int)load(own(mapping) + (iova - mapping->iova) + i, 1));
	putchar('\n');
}

static void touch(const struct vfio *vfio, u64 index, u64 offset, u64 width, const u64 *value)
{
	struct vfio_region_info *region = vfio_region(vfio, (u32)index);
	u64 data = value ? *value : 0;
	off_t place;
	ssize_t done;

	if (!region || width > sizeof(data)) {
		puts("error=range");
		free(region);
		return;
	}
	place = (off_t)(region->offset + offset);
	free(region);
	done = value ? pwrite(vfio->device, &data, width, place) :
		       pread(vfio->device, &data, width, place);
	if (done < 0)
		refused();
	else if ((u64)done != width)
		puts("error=short");
	else
		printf("%s=0x%0*llx\n", value ? "written" : "value", (int)width * 2, (ull)data);
}

static void vectors_off(const struct vfio *vfio)
{
	struct vfio_irq_set off = {
		.argsz = sizeof(off),
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = vector_index,
	};

	if (nr_vectors && ioctl(vfio->device, VFIO_DEVICE_SET_IRQS, &off))
		die("switch interrupts off");
	for (u32 i = 0; i < nr_vectors; i++)
		close(vectors[i]);
	nr_vectors = 0;
}

static void vectors_on(const struct vfio *vfio, const char *kind, u64 count)
{
	u8 room[sizeof(struct vfio_irq_set) + sizeof(vectors)] __attribute__((aligned(8)));
	struct vfio_irq_set *set = (void *)room;

	vectors_off(vfio);
	if (count > MOST_VECTORS) {
		puts("error=range");
		return;
	}
	vector_index = 0;
	while (vector_index < ARRAY_SIZE(vector_kinds) && strcmp(kind, vector_kinds[vector_index]))
		vector_index++;
	if (vector_index == ARRAY_SIZE(vector_kinds)) {
		puts("error=kind");
		return;
	}
	for (u32 i = 0; i < count; i++) {
		vectors[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (vectors[i] < 0)
			die("make an eventfd");
	}
	*set = (struct vfio_irq_set) {
		.argsz = (u32)(sizeof(*set) + count * sizeof(int)),
		.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = vector_index,
		.count = (u32)count,
	};
	memcpy(set->data, vectors, count * sizeof(int));
	if (count && ioctl(vfio->device, VFIO_DEVICE_SET_IRQS, set)) {
		int why = errno;

		for (u32 i = 0; i < count; i++)
			close(vectors[i]);
		errno = why;
		refused();
		return;
	}
	nr_vectors = (u32)count;
	printf("vectors=%u\n", nr_vectors);
}

/* An INTx is masked by the kernel when it comes, until it is asked for again. */
static void listen_again(const struct vfio *vfio)
{
	struct vfio_irq_set unmask = {
		.argsz = sizeof(unmask),
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK,
		.index = VFIO_PCI_INTX_IRQ_INDEX,
		.count = 1,
	};

	if (vector_index == VFIO_PCI_INTX_IRQ_INDEX &&
	    ioctl(vfio->device, VFIO_DEVICE_SET_IRQS, &unmask))
		die("unmask INTx");
}

static void await(const struct vfio *vfio, u64 vector, u64 milliseconds)
{
	struct pollfd wanted = { .events = POLLIN };
	u64 count = 0;

	if (vector >= nr_vectors) {
		puts("error=range");
		return;
	}
	wanted.fd = vectors[vector];
	if (poll(&wanted, 1, (int)milliseconds) < 0)
		die("wait for an interrupt");
	if ((wanted.revents & POLLIN) && read(wanted.fd, &count, sizeof(count)) != sizeof(count))
		die("count interrupts");
	if (count)
		listen_again(vfio);
	printf("count=%llu\n", (ull)count);
}

static void master(const struct vfio *vfio, bool on)
{
	vfio_command_change(vfio, on ? PCI_COMMAND_MASTER : 0, on ? 0 : PCI_COMMAND_MASTER);
	printf("command=0x%04x\n", vfio_command_read(vfio));
}

static void reset(const struct vfio *vfio)
{
	if (ioctl(vfio->device, VFIO_DEVICE_RESET))
		refused();
	else
		puts("reset=ok");
}

static void begin(struct vfio *vfio, const char *bdf)
{
	vfio_open(vfio, bdf);
	vfio_command_change(vfio, PCI_COMMAND_MEMORY | PCI_COMMAND_IO | PCI_COMMAND_MASTER, 0);
}

/* Another container, so another IOMMU domain, with nothing in it; our pages stay. */
static void again(struct vfio *vfio, const char *bdf)
{
	vectors_off(vfio);
	vfio_close(vfio);
	for (size_t i = 0; i < MOST_PAGES; i++)
		mappings[i].mapped = false;
	begin(vfio, bdf);
	puts("again=ok");
}

static bool number(const char *text, u64 *value)
{
	char *end;

	*value = strtoull(text, &end, 0);
	return end != text && !*end;
}

/* "syntax" is the name and a letter for each word: n a number, t a text. */
static bool is(char **words, size_t count, const char *name, const char *syntax, u64 *values)
{
	if (count != strlen(syntax) + 1 || strcmp(words[0], name))
		return false;
	for (size_t i = 0; syntax[i]; i++)
		if (syntax[i] == 'n' && !number(words[i + 1], &values[i]))
			return false;
	return true;
}

static void answer(struct vfio *vfio, const char *bdf, char *line)
{
	char *words[MOST_WORDS + 1];
	u64 v[MOST_WORDS];
	size_t n = 0;

	for (char *word = strtok(line, " \t\r\n"); word && n <= MOST_WORDS;
	     word = strtok(NULL, " \t\r\n"))
		words[n++] = word;
	if (is(words, n, "map", "n", v))
		map(vfio, v[0], "rw");
	else if (is(words, n, "map", "nt", v))
		map(vfio, v[0], words[2]);
	else if (is(words, n, "changed", "n", v))
		changed(v[0]);
	else if (is(words, n, "unmap", "n", v))
		unmap(vfio, v[0]);
	else if (is(words, n, "put", "nt", v))
		put(v[0], words[2]);
	else if (is(words, n, "get", "nn", v))
		get(v[0], v[1]);
	else if (is(words, n, "read", "nnn", v))
		touch(vfio, v[0], v[1], v[2], NULL);
	else if (is(words, n, "write", "nnnn", v))
		touch(vfio, v[0], v[1], v[2], &v[3]);
	else if (is(words, n, "interrupts", "tn", v))
		vectors_on(vfio, words[1], v[1]);
	else if (is(words, n, "wait", "nn", v))
		await(vfio, v[0], v[1]);
	else if (is(words, n, "master", "n", v))
		master(vfio, v[0]);
	else if (is(words, n, "reset", "", v))
		reset(vfio);
	else if (is(words, n, "again", "", v))
		again(vfio, bdf);
	else
		puts("error=command");
}

int vfio_drive(int argc, char **argv)
{
	static char line[2 * PAGE + 256];
	struct vfio vfio;
	char *words[1];

	parse_words(argc, argv, NULL, 0, words, 1, 1);
	begin(&vfio, words[0]);
	puts("ready=yes");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		answer(&vfio, words[0], line);
		if (fflush(stdout))
			die("write to stdout");
	}
	return ANSWERED;
}
