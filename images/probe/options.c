// SPDX-License-Identifier: GPL-2.0-or-later
/* Words and --options of a command line, in any order. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "probe.h"

/* Decimal, 0x hex or 0 octal; k, M and G multiply by powers of 1024. */
u64 parse_number(const char *what, const char *text)
{
	unsigned int shift = 0;
	char *end;
	u64 value;

	errno = 0;
	value = strtoull(text, &end, 0);
	/* strtoull() takes "-1" and " 1"; nothing here is negative. */
	if (errno || end == text || !isdigit((unsigned char)text[0]))
		misuse("%s is not a number: '%s'", what, text);
	switch (*end) {
	case 'k': case 'K': shift = 10; break;
	case 'm': case 'M': shift = 20; break;
	case 'g': case 'G': shift = 30; break;
	}
	if (shift)
		end++;
	if (*end || value > UINT64_MAX >> shift)
		misuse("%s is not a number: '%s'", what, text);
	return value << shift;
}

u64 parse_width(u64 width, u64 offset, unsigned int widest)
{
	if (width != 1 && width != 2 && width != 4 && width != 8)
		misuse("--width must be 1, 2, 4 or 8, not %llu", (ull)width);
	if (width > widest)
		misuse("--width %llu: at most %u here", (ull)width, widest);
	if (offset % width)
		misuse("offset 0x%llx is not aligned to %llu", (ull)offset, (ull)width);
	return width;
}

static u64 parse_seconds(const char *what, const char *text)
{
	char *end;
	double seconds = strtod(text, &end);

	if (end == text || *end || !(seconds >= 0 && seconds < 1e6))
		misuse("%s is not a number of seconds: '%s'", what, text);
	return (u64)(seconds * 1000);
}

static void take(const struct opt *opt, char *text)
{
	struct texts *texts = opt->value;

	if (opt->given)
		*opt->given = true;
	switch (opt->kind) {
	case OPT_FLAG:
		*(bool *)opt->value = true;
		break;
	case OPT_NUMBER:
		*(u64 *)opt->value = parse_number(opt->name, text);
		break;
	case OPT_SECONDS:
		*(u64 *)opt->value = parse_seconds(opt->name, text);
		break;
	case OPT_TEXT:
		*(char **)opt->value = text;
		break;
	case OPT_TEXTS:
		if (texts->count == ARRAY_SIZE(texts->text))
			misuse("too many --%s", opt->name);
		texts->text[texts->count++] = text;
		break;
	}
}

static const struct opt *find(const struct opt *opts, size_t nr_opts, const char *name,
			      size_t length)
{
	for (size_t i = 0; i < nr_opts; i++)
		if (strlen(opts[i].name) == length && !strncmp(opts[i].name, name, length))
			return &opts[i];
	misuse("unknown option --%.*s", (int)length, name);
}

/*
 * Sort argv into options and words; after "--" all are words.
 * Returns the number of words, which is least..most.
 */
int parse_words(int argc, char **argv, const struct opt *opts, size_t nr_opts,
		char **words, int least, int most)
{
	bool only_words = false;
	int count = 0;

	for (int i = 0; i < argc; i++) {
		const struct opt *opt;
		char *name, *text;

		if (only_words || strncmp(argv[i], "--", 2)) {
			if (count == most)
				misuse("one word too many: '%s'", argv[i]);
			words[count++] = argv[i];
			continue;
		}
		name = argv[i] + 2;
		if (!*name) {
			only_words = true;
			continue;
		}
		text = strchr(name, '=');
		opt = find(opts, nr_opts, name, text ? (size_t)(text - name) : strlen(name));
		if (opt->kind == OPT_FLAG && text)
			misuse("--%s takes no value", opt->name);
		if (text)
			text++;
		else if (opt->kind != OPT_FLAG && ++i == argc)
			misuse("--%s needs a value", opt->name);
		else
			text = argv[i];
		take(opt, text);
	}
	if (count < least)
		misuse("%d words needed, %d given", least, count);
	return count;
}
