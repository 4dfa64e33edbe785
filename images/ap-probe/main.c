// SPDX-License-Identifier: GPL-2.0-or-later
/* Lines in, lines out. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ap_probe.h"

int failed(void)
{
	const char *name = strerrorname_np(errno);

	fputs(name ? name : "unknown", stdout);
	return GO_ON;
}

int succeeded(void)
{
	fputs("ok", stdout);
	return GO_ON;
}

int done(const char *format, ...)
{
	va_list words;

	fputs("ok ", stdout);
	va_start(words, format);
	vprintf(format, words);
	va_end(words);
	return GO_ON;
}

char *first_word(char **rest)
{
	char *word;

	do {
		word = strsep(rest, " ");
	} while (word && !*word);
	return word;
}

static int answer(const struct request *requests, int count, char *line)
{
	const char *name = strsep(&line, " ");

	for (int i = 0; i < count; i++)
		if (!strcmp(requests[i].name, name))
			return requests[i].run(line ? line : strdup(""));
	fputs("unknown-request", stdout);
	return GO_ON;
}

int converse(const struct request *requests, int count)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t got;
	int next = GO_ON;

	while (next == GO_ON && (got = getline(&line, &room, stdin)) > 0) {
		if (line[got - 1] == '\n')
			line[got - 1] = 0;
		next = answer(requests, count, line);
		putchar('\n');
		/* A closed pipe must not look like an answer. */
		if (fflush(stdout))
			return 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "sysfs"))
		return sysfs_main();
	if (argc == 2 && !strcmp(argv[1], "vfio"))
		return vfio_main();
	fputs("ap-probe sysfs|vfio: requests by line on stdin, an answer by line on stdout;\n"
	      "the request 'help' lists the others\n", stderr);
	return 2;
}
