// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The smallest 64-bit guest: no firmware, long mode from the first instruction, one payload.
 *
 * It runs in a process of its own (see kvm.c) and prints its answer itself.
 */
#ifdef __x86_64__
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include "probe.h"

#define MEMORY_SIZE	0x10000UL
#define PML4		0x1000UL	/* guest physical, identity mapped */
#define PDPT		0x2000UL
#define PD		0x3000UL
#define PT		0x4000UL
#define CODE		0x5000UL
#define ENTRY		3UL		/* present, writable */

#define CR0_PE		(1UL << 0)
#define CR0_MP		(1UL << 1)
#define CR0_ET		(1UL << 4)
#define CR0_NE		(1UL << 5)
#define CR0_PG		(1UL << 31)
#define CR4_PAE		(1UL << 5)
#define EFER_LME	(1UL << 8)
#define EFER_LMA	(1UL << 10)

#define MOV_7_RAX	0x48, 0xc7, 0xc0, 0x07, 0x00, 0x00, 0x00
#define DEC_R8		0x49, 0xff, 0xc8
#define HLT		0xf4

static const u8 once[] = { MOV_7_RAX, HLT };
static const u8 movs[] = { MOV_7_RAX, DEC_R8, 0x75, 0xf4 /* jnz to the mov */, HLT };
static const u8 cpuids[] = {
	0x31, 0xc0,		/* xor %eax,%eax */
	0x0f, 0xa2,		/* cpuid */
	DEC_R8,
	0x75, 0xf7,		/* jnz to the xor */
	MOV_7_RAX, HLT,
};

/* Its only work is to make KVM_RUN return with EINTR. */
static void on_alarm(int number)
{
	(void)number;
}

static void __attribute__((noreturn)) no(int status, const char *reason, const char *detail)
{
	printf("kvm=no reason=%s%s%s\n", reason, detail ? " error=" : "", detail ? detail : "");
	fflush(stdout);
	_exit(status);
}

static int call(const char *name, int fd, unsigned long request, void *arg)
{
	int got = ioctl(fd, request, arg);

	if (got < 0)
		no(FAILED, name, error_name(errno));
	return got;
}

static u8 *give_memory(int vm)
{
	struct kvm_userspace_memory_region slot = { .memory_size = MEMORY_SIZE };
	u8 *memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);
	u64 *pt;

	if (memory == MAP_FAILED)
		no(FAILED, "allocate", error_name(errno));
	*(u64 *)(memory + PML4) = PDPT | ENTRY;
	*(u64 *)(memory + PDPT) = PD | ENTRY;
	*(u64 *)(memory + PD) = PT | ENTRY;
	pt = (u64 *)(memory + PT);
	for (u64 page = 0; page < MEMORY_SIZE / PAGE; page++)
		pt[page] = page * PAGE | ENTRY;
	slot.userspace_addr = (uintptr_t)memory;
	call("set-memory", vm, KVM_SET_USER_MEMORY_REGION, &slot);
	return memory;
}

static void give_cpuid(int kvm, int vcpu)
{
	enum { MOST = 256 };
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + MOST * sizeof(cpuid->entries[0]));

	if (!cpuid)
		no(FAILED, "allocate", error_name(errno));
	/* Without it the vCPU has no long mode to enter. */
	cpuid->nent = MOST;
	call("get-cpuid", kvm, KVM_GET_SUPPORTED_CPUID, cpuid);
	call("set-cpuid", vcpu, KVM_SET_CPUID2, cpuid);
	free(cpuid);
}

static void enter_long_mode(int vcpu, u64 count)
{
	struct kvm_regs regs = { .rip = CODE, .rflags = 2, .rsp = MEMORY_SIZE, .r8 = count };
	struct kvm_sregs sregs;
	struct kvm_segment data = {
		.limit = 0xffffffff, .selector = 0x10, .type = 3, .present = 1, .s = 1,
		.db = 1, .g = 1,
	};

	call("get-sregs", vcpu, KVM_GET_SREGS, &sregs);
	sregs.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_PG;
	sregs.cr3 = PML4;
	sregs.cr4 = CR4_PAE;
	sregs.efer |= EFER_LME | EFER_LMA;
	sregs.cs = data;
	sregs.cs.selector = 8;
	sregs.cs.type = 11;
	sregs.cs.db = 0;
	sregs.cs.l = 1;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	/* VM entry on Intel insists on a busy 64-bit TSS. */
	sregs.tr.type = 11;
	sregs.tr.present = 1;
	sregs.tr.s = 0;
	call("set-sregs", vcpu, KVM_SET_SREGS, &sregs);
	call("set-regs", vcpu, KVM_SET_REGS, &regs);
}

/* The vCPU statistic "exits", -1 if this kernel does not count it (before Linux 5.14). */
static long long exits(int vcpu)
{
	struct kvm_stats_header header;
	long long value = -1;
	size_t size;
	u8 *desc;
	int fd = ioctl(vcpu, KVM_GET_STATS_FD, NULL);

	if (fd < 0)
		return -1;
	if (pread(fd, &header, sizeof(header), 0) != sizeof(header))
		goto out;
	size = sizeof(struct kvm_stats_desc) + header.name_size;
	desc = calloc(1, size + 1);
	for (u32 i = 0; desc && i < header.num_desc; i++) {
		struct kvm_stats_desc *one = (void *)desc;
		u64 count;

		if (pread(fd, desc, size, (off_t)(header.desc_offset + i * size)) != (ssize_t)size)
			break;
		if (strcmp((char *)desc + sizeof(*one), "exits"))
			continue;
		if (pread(fd, &count, sizeof(count), header.data_offset + one->offset) ==
		    sizeof(count))
			value = (long long)count;
		break;
	}
	free(desc);
out:
	close(fd);
	return value;
}

/* KVM_RUN until it halts; signals only look whether the deadline passed. */
static void run_until_halt(int vcpu, struct kvm_run *run, u64 deadline)
{
	struct kvm_regs regs;
	char reason[64];

	for (;;) {
		if (!ioctl(vcpu, KVM_RUN, NULL)) {
			if (run->exit_reason == KVM_EXIT_HLT)
				return;
			if (run->exit_reason == KVM_EXIT_INTR && now_ms() < deadline)
				continue;
			snprintf(reason, sizeof(reason), "exit-%u", run->exit_reason);
			if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
				snprintf(reason, sizeof(reason), "exit-%u-suberror-%u",
					 run->exit_reason, run->internal.suberror);
			no(FAILED, reason, NULL);
		}
		if (errno != EINTR)
			no(FAILED, "run", error_name(errno));
		if (now_ms() >= deadline)
			break;
	}
	call("get-regs", vcpu, KVM_GET_REGS, &regs);
	printf("rip=0x%llx\n", (ull)regs.rip);
	no(LATE, "deadline", NULL);
}

static void start_alarms(void)
{
	/* No SA_RESTART: KVM_RUN must return. Again and again: the first may come too early. */
	struct sigaction action = { .sa_handler = on_alarm };
	struct itimerval timer = { { 0, 50000 }, { 0, 50000 } };

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
}

static const struct {
	const char *name;
	const u8 *code;
	size_t size;
} payloads[] = {
	[KVM_OP_NONE] = { "none", once, sizeof(once) },
	[KVM_OP_MOV] = { "mov", movs, sizeof(movs) },
	[KVM_OP_CPUID] = { "cpuid", cpuids, sizeof(cpuids) },
};

struct guest {
	int vcpu;
	struct kvm_run *run;
	u8 *memory;
	u64 deadline;
};

/* Run a payload to its end; the exits it cost, -1 if they are not counted. */
static long long run_payload(const struct guest *guest, enum kvm_op op, u64 count)
{
	struct kvm_regs regs;
	long long before, after;

	memcpy(guest->memory + CODE, payloads[op].code, payloads[op].size);
	enter_long_mode(guest->vcpu, count);
	before = exits(guest->vcpu);
	run_until_halt(guest->vcpu, guest->run, guest->deadline);
	after = exits(guest->vcpu);
	call("get-regs", guest->vcpu, KVM_GET_REGS, &regs);
	if (regs.rax != 7) {
		printf("rax=0x%llx\n", (ull)regs.rax);
		no(FAILED, "rax", NULL);
	}
	return before < 0 || after < 0 ? -1 : after - before;
}

static void print_exits(long long count)
{
	if (count < 0)
		fputs(" exits=unknown", stdout);
	else
		printf(" exits=%lld", count);
}

/*
 * VMX cannot, and SVM as KVM sets it up does not, run cpuid without an exit. Fewer exits than
 * cpuids: the instructions are interpreted (kvm_pvm does that to a guest that does not know
 * it), which is right but too slow for a system, and its exits say nothing about traps.
 */
static const char *hardware(const struct guest *guest)
{
	const u64 cpuid_count = 200;
	long long count = run_payload(guest, KVM_OP_CPUID, cpuid_count);

	if (count < 0)
		return "unknown";
	return yes_no((u64)count >= cpuid_count);
}

void kvm_guest_run(enum kvm_op op, u64 count, u64 deadline_ms)
{
	struct guest guest = { .deadline = deadline_ms };
	int kvm, vm, size;
	const char *native;
	long long cost;

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		no(FAILED, "open", error_name(errno));
	if (call("api-version", kvm, KVM_GET_API_VERSION, NULL) != KVM_API_VERSION)
		no(FAILED, "api-version", NULL);
	vm = call("create-vm", kvm, KVM_CREATE_VM, NULL);
	/* Only Intel hosts want it, only for real mode; refusal does not matter. */
	(void)ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000UL);
	guest.memory = give_memory(vm);
	guest.vcpu = call("create-vcpu", vm, KVM_CREATE_VCPU, NULL);
	size = call("mmap-size", kvm, KVM_GET_VCPU_MMAP_SIZE, NULL);
	guest.run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, guest.vcpu, 0);
	if (guest.run == MAP_FAILED)
		no(FAILED, "map-vcpu", error_name(errno));
	give_cpuid(kvm, guest.vcpu);
	start_alarms();

	cost = run_payload(&guest, op, count);
	native = hardware(&guest);
	fputs("kvm=ok rax=7", stdout);
	if (op != KVM_OP_NONE)
		printf(" op=%s count=%llu", payloads[op].name, (ull)count);
	print_exits(cost);
	printf(" hardware=%s\n", native);
	fflush(stdout);
	_exit(ANSWERED);
}
#else
#include <unistd.h>

#include "probe.h"

void kvm_guest_run(enum kvm_op op, u64 count, u64 deadline_ms)
{
	(void)op;
	(void)count;
	(void)deadline_ms;
	puts("kvm=no reason=architecture");
	fflush(stdout);
	_exit(FAILED);
}
#endif
