// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A deterministic pattern over a 64-bit offset space, the same as harness/model/pattern.py:
 *
 *	mix(x)       three times: x ^= x << 13; x ^= x >> 7; x ^= x << 17   (64 bits)
 *	key(seed)    mix(seed ^ 0x9e3779b97f4a7c15)
 *	word(i)      mix(i ^ key(seed))
 *	byte at o    byte o % 8 of word(o / 8), the lowest first
 *
 * mix() is a bijection, so no two words of one seed are equal: any misplaced data is seen.
 */
#include "probe.h"

static u64 mix(u64 x)
{
	for (int round = 0; round < 3; round++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
	}
	return x;
}

void pattern_fill(u64 seed, u64 offset, void *buffer, size_t length)
{
	u64 key = mix(seed ^ 0x9e3779b97f4a7c15ULL);
	u8 *bytes = buffer;

	for (size_t i = 0; i < length; i++, offset++)
		bytes[i] = (u8)(mix((offset / 8) ^ key) >> (offset % 8 * 8));
}
