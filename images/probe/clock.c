// SPDX-License-Identifier: GPL-2.0-or-later
/* Time for deadlines: monotonic, so that a clock step in a restored guest does not matter. */
#include <time.h>

#include "probe.h"

u64 now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (u64)now.tv_sec * 1000 + (u64)now.tv_nsec / 1000000;
}

void pause_ms(unsigned int ms)
{
	struct timespec pause = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };

	nanosleep(&pause, NULL);
}
