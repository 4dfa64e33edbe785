// SPDX-License-Identifier: GPL-2.0-or-later
/* Attributes: read, write, with the errno that the kernel gave. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ap_probe.h"

/* Line ends inside a text travel as \n. */
static void print_text(const char *text, size_t length)
{
	while (length && text[length - 1] == '\n')
		length--;
	for (size_t i = 0; i < length; i++) {
		if (text[i] == '\n')
			fputs("\\n", stdout);
		else
			putchar(text[i]);
	}
}

/* One write(2) with the text and a line end, as echo does. */
static int write_attribute(char *words)
{
	char *path = first_word(&words), *text;
	ssize_t length;
	int fd;

	fd = open(path ? path : "", O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0)
		return failed();
	length = asprintf(&text, "%s\n", words ? words : "");
	if (write(fd, text, length) != length)
		failed();
	else
		succeeded();
	free(text);
	close(fd);
	return GO_ON;
}

static int read_attribute(char *words)
{
	static char text[65536];
	char *path = first_word(&words);
	size_t length = 0;
	ssize_t got = 0;
	int fd = open(path ? path : "", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return failed();
	while (length < sizeof(text) && (got = read(fd, text + length, sizeof(text) - length)) > 0)
		length += got;
	if (got < 0) {
		failed();
	} else {
		succeeded();
		putchar(' ');
		print_text(text, length);
	}
	close(fd);
	return GO_ON;
}

static int read_link(char *words)
{
	char target[4096];
	char *path = first_word(&words);
	ssize_t got = readlink(path ? path : "", target, sizeof(target) - 1);

	if (got < 0)
		return failed();
	target[got] = 0;
	return done("%s", target);
}

static int list_directory(char *words)
{
	struct dirent **entries;
	char *path = first_word(&words);
	int count = scandir(path ? path : "", &entries, NULL, alphasort);

	if (count < 0)
		return failed();
	succeeded();
	for (int i = 0; i < count; i++) {
		if (entries[i]->d_name[0] != '.')
			printf(" %s", entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	return GO_ON;
}

static int help(char *words);

static const struct request requests[] = {
	{ "w", "w PATH TEXT: write the rest of the line and a line end", write_attribute },
	{ "r", "r PATH: read; line ends inside are \\n", read_attribute },
	{ "l", "l PATH: read a link", read_link },
	{ "d", "d PATH: names in a directory", list_directory },
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

int sysfs_main(void)
{
	return converse(requests, sizeof(requests) / sizeof(*requests));
}
