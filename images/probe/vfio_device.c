// SPDX-License-Identifier: GPL-2.0-or-later
/* A function bound to vfio-pci, opened through its group and a type 1 container. */
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "probe.h"

static int open_group(const char *bdf)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	char path[300], link[256];
	const char *number;
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu_group", bdf);
	length = readlink(path, link, sizeof(link) - 1);
	if (length < 0)
		die("read %s (no IOMMU, or no such function)", path);
	link[length] = '\0';
	number = strrchr(link, '/');
	snprintf(path, sizeof(path), "/dev/vfio/%s", number ? number + 1 : link);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		die("open %s (is %s bound to vfio-pci?)", path, bdf);
	if (ioctl(fd, VFIO_GROUP_GET_STATUS, &status))
		die("status of %s", path);
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		fail("%s is not viable: another function of the group has a host driver", path);
	return fd;
}

void vfio_open(struct vfio *vfio, const char *bdf)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };

	vfio->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (vfio->container < 0)
		die("open /dev/vfio/vfio");
	vfio->group = open_group(bdf);
	if (ioctl(vfio->group, VFIO_GROUP_SET_CONTAINER, &vfio->container))
		die("attach the group of %s to a container", bdf);
	if (ioctl(vfio->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		die("set the IOMMU of the container");
	vfio->device = ioctl(vfio->group, VFIO_GROUP_GET_DEVICE_FD, bdf);
	if (vfio->device < 0)
		die("open %s in its group", bdf);
	if (ioctl(vfio->device, VFIO_DEVICE_GET_INFO, &info))
		die("info of %s", bdf);
	vfio->flags = info.flags;
	vfio->num_regions = info.num_regions;
	vfio->num_irqs = info.num_irqs;
}

/* Its IOMMU domain, with every mapping in it, goes with the container. */
void vfio_close(const struct vfio *vfio)
{
	close(vfio->device);
	close(vfio->group);
	close(vfio->container);
}

/* Region info with its capabilities, to be freed; NULL if the device has no such region. */
struct vfio_region_info *vfio_region(const struct vfio *vfio, u32 index)
{
	u32 size = sizeof(struct vfio_region_info);
	struct vfio_region_info *info = NULL;

	/* The first answer says how much room the capabilities need. */
	for (;;) {
		info = realloc(info, size);
		if (!info)
			die("allocate");
		memset(info, 0, size);
		info->argsz = size;
		info->index = index;
		if (ioctl(vfio->device, VFIO_DEVICE_GET_REGION_INFO, info)) {
			free(info);	/* VGA of a function that is none: EINVAL */
			return NULL;
		}
		if (info->argsz <= size)
			return info;
		size = info->argsz;
	}
}

static u64 config_offset(const struct vfio *vfio)
{
	struct vfio_region_info *info = vfio_region(vfio, VFIO_PCI_CONFIG_REGION_INDEX);
	u64 offset;

	if (!info)
		die("find configuration space");
	offset = info->offset;
	free(info);
	return offset;
}

u16 vfio_command_read(const struct vfio *vfio)
{
	u16 command;

	if (pread(vfio->device, &command, sizeof(command),
		  (off_t)(config_offset(vfio) + PCI_COMMAND)) != sizeof(command))
		die("read COMMAND");
	return command;
}

void vfio_command_change(const struct vfio *vfio, u16 set, u16 clear)
{
	u16 command = (u16)((vfio_command_read(vfio) & ~clear) | set);

	if (pwrite(vfio->device, &command, sizeof(command),
		   (off_t)(config_offset(vfio) + PCI_COMMAND)) != sizeof(command))
		die("write COMMAND");
}

/* NULL (and errno) if the kernel refuses to map that part of the region. */
volatile u8 *vfio_map(const struct vfio *vfio, u32 index, u64 offset, u64 length, bool write)
{
	struct vfio_region_info *info = vfio_region(vfio, index);
	u64 aligned = offset & ~(PAGE - 1);
	u8 *base;

	if (!info)
		die("find region %u", index);
	base = mmap(NULL, length + offset - aligned, PROT_READ | (write ? PROT_WRITE : 0),
		    MAP_SHARED, vfio->device, (off_t)(info->offset + aligned));
	free(info);
	return base == MAP_FAILED ? NULL : base + (offset - aligned);
}
