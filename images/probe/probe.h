/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * probe: one static program that touches what the tests judge.
 *
 * Output: lines of blank-separated key=value pairs on stdout; values hold no blanks.
 * Errors: "probe: what failed: why" on stderr.
 */
#ifndef PROBE_H
#define PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef unsigned long long ull;		/* for %llx */

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define PAGE		4096UL

/* Exit statuses. An answer that the caller does not like is still ANSWERED. */
enum { ANSWERED = 0, FAILED = 1, MISUSED = 2, LATE = 3 };

/* One subcommand. run() gets the words after the name and returns an exit status. */
struct command {
	const char *name;
	const char *summary;
	const char *help;
	int (*run)(int argc, char **argv);
};

extern const struct command relay_command, run_command, mem_command, port_command,
	config_command, canary_command, edu_command, vfio_command, kvm_command, block_command,
	wake_command, await_command, nvme_command;

/* report.c: every way to end without an answer */
void die(const char *what, ...) __attribute__((noreturn, format(printf, 1, 2)));
void fail(const char *what, ...) __attribute__((noreturn, format(printf, 1, 2)));
void misuse(const char *what, ...) __attribute__((noreturn, format(printf, 1, 2)));
void late(const char *what, ...) __attribute__((noreturn, format(printf, 1, 2)));
const char *yes_no(bool value);
const char *error_name(int number);

/* options.c */
enum opt_kind { OPT_FLAG, OPT_NUMBER, OPT_SECONDS, OPT_TEXT, OPT_TEXTS };

struct opt {
	const char *name;	/* without the dashes */
	enum opt_kind kind;
	void *value;		/* bool, u64, u64 milliseconds, char *, struct texts */
	bool *given;		/* may be NULL */
};

struct texts {
	char *text[64];
	size_t count;
};

u64 parse_number(const char *what, const char *text);
u64 parse_width(u64 width, u64 offset, unsigned int widest);
int parse_words(int argc, char **argv, const struct opt *opts, size_t nr_opts,
		char **words, int least, int most);

/* clock.c: a deadline is a value of now_ms() */
u64 now_ms(void);
void pause_ms(unsigned int ms);

/* access.c: accesses of an exact width, and what they run into */
struct access {
	unsigned int width;	/* 1, 2, 4 or 8 bytes */
	bool write;
	u64 count;
	u64 value;		/* to be written */
	/* filled by the one who makes the accesses */
	u64 done, first, last;
	bool equal;
};

void access_note(struct access *access, u64 value);
void access_print(const struct access *access);
void access_memory(struct access *access, volatile void *where);
void access_file(struct access *access, int fd, u64 offset, const char *path);
bool survives(void (*work)(void *arg), void *arg);
volatile u8 *map_file(const char *path, u64 offset, u64 length, bool write);

static inline u64 load(const volatile void *where, unsigned int width)
{
	switch (width) {
	case 1: return *(const volatile u8 *)where;
	case 2: return *(const volatile u16 *)where;
	case 4: return *(const volatile u32 *)where;
	default: return *(const volatile u64 *)where;
	}
}

static inline void store(volatile void *where, unsigned int width, u64 value)
{
	switch (width) {
	case 1: *(volatile u8 *)where = value; break;
	case 2: *(volatile u16 *)where = value; break;
	case 4: *(volatile u32 *)where = value; break;
	default: *(volatile u64 *)where = value; break;
	}
}

/* pages.c: locked pages whose physical address is known */
struct page {
	u8 *virt;
	u64 phys;
};

void pages_hold(struct page *pages, size_t count, u64 above, u64 below);
void pages_hold_neighbours(struct page *pages, size_t count);
u64 physical_address(const void *virt);

/* pattern.c: the same function as harness/model/pattern.py */
void pattern_fill(u64 seed, u64 offset, void *buffer, size_t length);

/* edu_device.c: the programming model of QEMU's edu device */
#define EDU_BUFFER	0x40000ULL
#define EDU_BUFFER_SIZE	0x1000ULL
#define EDU_MASK_LIMIT	(1ULL << 28)	/* default dma_mask */

enum edu_register {
	EDU_ID = 0x00, EDU_LIVENESS = 0x04, EDU_FACTORIAL = 0x08, EDU_STATUS = 0x20,
	EDU_IRQ_STATUS = 0x24, EDU_IRQ_RAISE = 0x60, EDU_IRQ_ACK = 0x64,
	EDU_DMA_SOURCE = 0x80, EDU_DMA_DESTINATION = 0x88, EDU_DMA_COUNT = 0x90,
	EDU_DMA_COMMAND = 0x98,
};

enum edu_direction { EDU_TO_DEVICE, EDU_FROM_DEVICE };

struct edu {
	volatile u8 *registers;
	u64 timeout_ms;
	bool interrupt;		/* ask for one at the end */
};

void edu_check_id(const struct edu *edu);
void edu_wait_clear(const struct edu *edu, enum edu_register which, u32 bits, const char *what);
void edu_transfer(const struct edu *edu, enum edu_direction direction, u64 address, u64 buffer,
		  u64 length);

/* vfio_device.c: a function bound to vfio-pci, through the group interface */
struct vfio {
	int container, group, device;
	u32 flags, num_regions, num_irqs;
};

struct vfio_region_info;
void vfio_open(struct vfio *vfio, const char *bdf);
void vfio_close(const struct vfio *vfio);
struct vfio_region_info *vfio_region(const struct vfio *vfio, u32 index);
u16 vfio_command_read(const struct vfio *vfio);
void vfio_command_change(const struct vfio *vfio, u16 set, u16 clear);
volatile u8 *vfio_map(const struct vfio *vfio, u32 index, u64 offset, u64 length, bool write);
int vfio_edu_dma(int argc, char **argv);
int vfio_drive(int argc, char **argv);

/* kvm_guest.c: the smallest 64-bit guest */
enum kvm_op { KVM_OP_NONE, KVM_OP_MOV, KVM_OP_CPUID };

void kvm_guest_run(enum kvm_op op, u64 count, u64 deadline_ms) __attribute__((noreturn));

#endif
