// SPDX-License-Identifier: GPL-2.0-or-later
/* The programming model of QEMU's edu device (docs/specs/edu.rst, hw/misc/edu.c). */
#include "probe.h"

#define ID_MASK			0x00ff00ffU	/* 0xRRrr00ed: version, then "ed" */
#define ID_VALUE		0x000000edU
#define COMMAND_START		(1U << 0)
#define COMMAND_FROM_DEVICE	(1U << 1)
#define COMMAND_INTERRUPT	(1U << 2)

void edu_check_id(const struct edu *edu)
{
	u32 id = (u32)load(edu->registers + EDU_ID, 4);

	if ((id & ID_MASK) != ID_VALUE)
		fail("not an edu device: id register is 0x%08x", id);
}

void edu_wait_clear(const struct edu *edu, enum edu_register which, u32 bits, const char *what)
{
	u64 deadline = now_ms() + edu->timeout_ms;
	u32 value;

	for (;;) {
		bool last = now_ms() >= deadline;

		value = (u32)load(edu->registers + which, 4);
		if (value == UINT32_MAX)
			fail("%s: register 0x%02x reads all ones, memory space is off", what, which);
		if (!(value & bits))
			return;
		if (last)
			late("%s: register 0x%02x is still 0x%08x", what, which, value);
		pause_ms(1);
	}
}

/* 8-byte accesses only exist since QEMU 4.1, and a 4-byte one sets the whole register. */
static void set(const struct edu *edu, enum edu_register which, u64 value)
{
	store(edu->registers + which, value >> 32 ? 8 : 4, value);
}

/* One DMA of the device; the device takes about 100 ms to do it. */
void edu_transfer(const struct edu *edu, enum edu_direction direction, u64 address, u64 buffer,
		  u64 length)
{
	u32 command = COMMAND_START;

	if (direction == EDU_FROM_DEVICE)
		command |= COMMAND_FROM_DEVICE;
	if (edu->interrupt)
		command |= COMMAND_INTERRUPT;
	edu_wait_clear(edu, EDU_DMA_COMMAND, COMMAND_START, "DMA before ours");
	set(edu, EDU_DMA_SOURCE, direction == EDU_FROM_DEVICE ? buffer : address);
	set(edu, EDU_DMA_DESTINATION, direction == EDU_FROM_DEVICE ? address : buffer);
	set(edu, EDU_DMA_COUNT, length);
	set(edu, EDU_DMA_COMMAND, command);
	edu_wait_clear(edu, EDU_DMA_COMMAND, COMMAND_START, "DMA");
}
