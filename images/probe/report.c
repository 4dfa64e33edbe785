// SPDX-License-Identifier: GPL-2.0-or-later
/* Every way to end without an answer. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "probe.h"

static void __attribute__((noreturn)) end(int status, const char *why, const char *what,
					   va_list words)
{
	/* What was already found out must not be lost, and comes before the error. */
	fflush(stdout);
	fputs("probe: ", stderr);
	vfprintf(stderr, what, words);
	if (why)
		fprintf(stderr, ": %s", why);
	fputc('\n', stderr);
	exit(status);
}

/* A system call failed: errno says why. */
void die(const char *what, ...)
{
	const char *why = strerror(errno);
	va_list words;

	va_start(words, what);
	end(FAILED, why, what, words);
}

/* Something else failed. */
void fail(const char *what, ...)
{
	va_list words;

	va_start(words, what);
	end(FAILED, NULL, what, words);
}

/* The command line is wrong. */
void misuse(const char *what, ...)
{
	va_list words;

	va_start(words, what);
	end(MISUSED, "see 'probe help'", what, words);
}

/* A deadline passed. */
void late(const char *what, ...)
{
	va_list words;

	va_start(words, what);
	end(LATE, "deadline passed", what, words);
}

const char *yes_no(bool value)
{
	return value ? "yes" : "no";
}

/* ENOENT and so on: strerror() has blanks, values may not. */
const char *error_name(int number)
{
	const char *name = strerrorname_np(number);

	return name ? name : "unknown";
}
