// SPDX-License-Identifier: GPL-2.0-or-later
/* The smallest virtual machine that vfio_ap gives its device to. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ap_probe.h"

#define MEMORY_SIZE	(1UL << 20)

static int vm_fd = -1, vfio_fd = -1, vcpu_fd = -1;

static void shut(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void kvm_close(void)
{
	shut(&vfio_fd);
	shut(&vcpu_fd);
	shut(&vm_fd);
}

int kvm_open(char *words)
{
	struct kvm_create_device device = { .type = KVM_DEV_TYPE_VFIO };
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	(void)words;
	if (kvm < 0)
		return failed();
	vm_fd = ioctl(kvm, KVM_CREATE_VM, 0);
	close(kvm);
	if (vm_fd < 0)
		return failed();
	if (ioctl(vm_fd, KVM_CREATE_DEVICE, &device))
		return failed();
	vfio_fd = device.fd;
	return succeeded();
}

/* kvm-file [FD]: tell KVM of a group or device file */
int kvm_group(char *words)
{
	char *word = first_word(&words);
	int fd = group_fd;
	struct kvm_device_attr attribute = {
		.group = KVM_DEV_VFIO_GROUP,
		.attr = KVM_DEV_VFIO_GROUP_ADD,
		.addr = (unsigned long)&fd,
	};

	if (word)
		sscanf(word, "%d", &fd);
	return ioctl(vfio_fd, KVM_SET_DEVICE_ATTR, &attribute) ? failed() : succeeded();
}

/* Let the guest execute AP instructions without an intercept. */
int kvm_apie(char *words)
{
	struct kvm_device_attr attribute = {
		.group = KVM_S390_VM_CRYPTO,
		.attr = KVM_S390_VM_CRYPTO_ENABLE_APIE,
	};

	(void)words;
	if (ioctl(vm_fd, KVM_HAS_DEVICE_ATTR, &attribute))
		return failed();
	return ioctl(vm_fd, KVM_SET_DEVICE_ATTR, &attribute) ? failed() : succeeded();
}

int kvm_vcpu(char *words)
{
	struct kvm_userspace_memory_region slot = { .memory_size = MEMORY_SIZE };
	void *memory = mmap(NULL, 2 * MEMORY_SIZE, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	(void)words;
	if (memory == MAP_FAILED)
		return failed();
	/* A slot begins at a segment. */
	slot.userspace_addr = ((unsigned long)memory + MEMORY_SIZE - 1) & ~(MEMORY_SIZE - 1);
	memset((void *)slot.userspace_addr, 0, MEMORY_SIZE);
	if (ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, &slot))
		return failed();
	vcpu_fd = ioctl(vm_fd, KVM_CREATE_VCPU, 0);
	return vcpu_fd < 0 ? failed() : succeeded();
}

int kvm_run(char *words)
{
	struct kvm_run *run = MAP_FAILED;
	int result;

	(void)words;
	if (vcpu_fd >= 0)
		run = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, 0);
	if (run == MAP_FAILED) {
		errno = EBADF;
		return failed();
	}
	result = ioctl(vcpu_fd, KVM_RUN, 0);
	if (result < 0)
		failed();
	else
		done("exit=%u icpt=%#x ipa=%#x", run->exit_reason, run->s390_sieic.icptcode,
		     run->s390_sieic.ipa);
	munmap(run, 4096);
	return GO_ON;
}
