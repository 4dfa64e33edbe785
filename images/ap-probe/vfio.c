// SPDX-License-Identifier: GPL-2.0-or-later
/* A vfio-ap device by group and container, or by its own file and iommufd. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "ap_probe.h"

/* Newer than the headers of some builders: linux/iommufd.h, linux/vfio.h of 6.6. */
struct bind_iommufd { uint32_t argsz, flags; int32_t iommufd; uint32_t out_devid; };
struct attach_pt { uint32_t argsz, flags, pt_id; };
struct ioas_alloc { uint32_t size, flags, out_id; };
#define BIND_IOMMUFD	_IO(VFIO_TYPE, VFIO_BASE + 18)
#define ATTACH_PT	_IO(VFIO_TYPE, VFIO_BASE + 19)
#define DETACH_PT	_IO(VFIO_TYPE, VFIO_BASE + 20)
#define IOAS_ALLOC	_IO(';', 0x81)

int group_fd = -1;
static int container_fd = -1, iommufd = -1, device_fd = -1, events[4] = { -1, -1, -1, -1 };

static void shut(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static int open_group(char *words)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	char *path = first_word(&words);

	group_fd = open(path ? path : "", O_RDWR | O_CLOEXEC);
	if (group_fd < 0)
		return failed();
	if (ioctl(group_fd, VFIO_GROUP_GET_STATUS, &status))
		return failed();
	return done("viable=%d", !!(status.flags & VFIO_GROUP_FLAGS_VIABLE));
}

static int attach_container(char *words)
{
	(void)words;
	container_fd = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (container_fd < 0)
		return failed();
	if (ioctl(group_fd, VFIO_GROUP_SET_CONTAINER, &container_fd))
		return failed();
	if (ioctl(container_fd, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU))
		return failed();
	return done("api=%d type1=%d", ioctl(container_fd, VFIO_GET_API_VERSION),
		    ioctl(container_fd, VFIO_CHECK_EXTENSION, VFIO_TYPE1_IOMMU));
}

static int get_device(char *words)
{
	char *name = first_word(&words);

	int fd = ioctl(group_fd, VFIO_GROUP_GET_DEVICE_FD, name ? name : "");

	if (fd < 0)
		return failed();
	device_fd = fd;
	return succeeded();
}

static int open_device(char *words)
{
	char *path = first_word(&words);

	device_fd = open(path ? path : "", O_RDWR | O_CLOEXEC);
	return device_fd < 0 ? failed() : done("fd=%d", device_fd);
}

static int bind_device(char *words)
{
	struct bind_iommufd bind = { .argsz = sizeof(bind) };

	(void)words;
	iommufd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (iommufd < 0)
		return failed();
	bind.iommufd = iommufd;
	return ioctl(device_fd, BIND_IOMMUFD, &bind) ? failed() : done("devid=%u", bind.out_devid);
}

static int attach_device(char *words)
{
	struct ioas_alloc alloc = { .size = sizeof(alloc) };
	struct attach_pt attach = { .argsz = sizeof(attach) };

	(void)words;
	if (ioctl(iommufd, IOAS_ALLOC, &alloc))
		return failed();
	attach.pt_id = alloc.out_id;
	return ioctl(device_fd, ATTACH_PT, &attach) ? failed() : done("ioas=%u", alloc.out_id);
}

static int detach_device(char *words)
{
	struct attach_pt detach = { .argsz = sizeof(uint32_t) * 2 };

	(void)words;
	return ioctl(device_fd, DETACH_PT, &detach) ? failed() : succeeded();
}

static int info(char *words)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };

	(void)words;
	if (ioctl(device_fd, VFIO_DEVICE_GET_INFO, &info))
		return failed();
	return done("flags=%#x regions=%u irqs=%u", info.flags, info.num_regions, info.num_irqs);
}

static unsigned int number(char **words)
{
	char *word = first_word(words);

	return word ? strtoul(word, NULL, 0) : 0;
}

static int irq_info(char *words)
{
	struct vfio_irq_info info = { .argsz = sizeof(info), .index = number(&words) };

	if (ioctl(device_fd, VFIO_DEVICE_GET_IRQ_INFO, &info))
		return failed();
	return done("flags=%#x count=%u", info.flags, info.count);
}

static int region_info(char *words)
{
	struct vfio_region_info info = { .argsz = sizeof(info), .index = number(&words) };

	return ioctl(device_fd, VFIO_DEVICE_GET_REGION_INFO, &info) ? failed() : succeeded();
}

/* signal INDEX: have an eventfd raised by that interrupt */
static int set_signal(char *words)
{
	char room[sizeof(struct vfio_irq_set) + sizeof(int)];
	struct vfio_irq_set *set = (void *)room;
	unsigned int index = number(&words);
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	set->argsz = sizeof(room);
	set->flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
	set->index = index;
	set->start = 0;
	set->count = 1;
	memcpy(set->data, &fd, sizeof(fd));
	if (fd < 0 || ioctl(device_fd, VFIO_DEVICE_SET_IRQS, set)) {
		failed();
		shut(&fd);
		return GO_ON;
	}
	if (index < sizeof(events) / sizeof(*events)) {
		shut(&events[index]);
		events[index] = fd;
	}
	return succeeded();
}

/* signalled INDEX: how often since the last look */
static int signalled(char *words)
{
	unsigned int index = number(&words);
	uint64_t count = 0;

	if (index >= sizeof(events) / sizeof(*events) || events[index] < 0) {
		errno = EBADF;
		return failed();
	}
	if (read(events[index], &count, sizeof(count)) < 0)
		count = 0;
	return done("count=%llu", (unsigned long long)count);
}

static int reset(char *words)
{
	(void)words;
	return ioctl(device_fd, VFIO_DEVICE_RESET) ? failed() : succeeded();
}

static int close_device(char *words)
{
	(void)words;
	shut(&device_fd);
	return succeeded();
}

static int close_all(char *words)
{
	(void)words;
	shut(&device_fd);
	kvm_close();
	shut(&group_fd);
	shut(&container_fd);
	shut(&iommufd);
	for (size_t i = 0; i < sizeof(events) / sizeof(*events); i++)
		shut(&events[i]);
	return succeeded();
}

static int leave(char *words)
{
	close_all(words);
	return LEAVE;
}

static int help(char *words);

static const struct request requests[] = {
	{ "group", "group PATH: open a group", open_group },
	{ "container", "container: give the group a container of type 1", attach_container },
	{ "device", "device NAME: take the device from the group", get_device },
	{ "file", "file PATH: open the device's own file", open_device },
	{ "bind", "bind: bind that file to an iommufd", bind_device },
	{ "attach", "attach: to a new address space", attach_device },
	{ "detach", "detach: from it", detach_device },
	{ "kvm", "kvm: make a virtual machine", kvm_open },
	{ "kvm-file", "kvm-file [FD]: tell it of the group, or of the device's file", kvm_group },
	{ "apie", "apie: interpret AP instructions", kvm_apie },
	{ "vcpu", "vcpu: 1 MiB of memory and a processor", kvm_vcpu },
	{ "run", "run: KVM_RUN", kvm_run },
	{ "info", "info: VFIO_DEVICE_GET_INFO", info },
	{ "irq", "irq INDEX: VFIO_DEVICE_GET_IRQ_INFO", irq_info },
	{ "region", "region INDEX: VFIO_DEVICE_GET_REGION_INFO", region_info },
	{ "signal", "signal INDEX: have an eventfd raised", set_signal },
	{ "signalled", "signalled INDEX: how often it was", signalled },
	{ "reset", "reset: VFIO_DEVICE_RESET", reset },
	{ "close-device", "close-device: the device, not the machine", close_device },
	{ "close", "close: everything", close_all },
	{ "exit", "exit: close everything and end", leave },
	{ "help", "this", help },
};

static int help(char *words)
{
	(void)words;
	succeeded();
	for (size_t i = 0; i < sizeof(requests) / sizeof(*requests); i++)
		printf(" | %s", requests[i].help);
	return GO_ON;
}

int vfio_main(void)
{
	return converse(requests, sizeof(requests) / sizeof(*requests));
}
