// SPDX-License-Identifier: GPL-2.0-or-later
/* Memory that must not change, or that DMA is aimed at: filled, located, checked on demand. */
#include <stdlib.h>
#include <string.h>

#include "probe.h"

#define DEFAULT_VALUE	0x5a5aa5a5c33c3cc3ULL
#define MOST_PAGES	4096

static struct page pages[MOST_PAGES];

/* Bytes are read through volatile: a device may have written them. */
static u8 byte_at(u64 offset)
{
	return (u8)load(pages[offset / PAGE].virt + offset % PAGE, 1);
}

static void fill(u64 nr_pages, u64 value)
{
	for (u64 word = 0; word < nr_pages * PAGE / 8; word++)
		store(pages[word * 8 / PAGE].virt + word * 8 % PAGE, 8, value);
}

static void check(u64 nr_pages, u64 value)
{
	u64 first = 0, different = 0, seen = 0;
	bool moved = false;

	for (u64 offset = 0; offset < nr_pages * PAGE; offset++) {
		u8 want = (u8)(value >> (offset % 8 * 8));

		if (byte_at(offset) == want)
			continue;
		if (!different++) {
			first = offset;
			seen = load(pages[offset / PAGE].virt + (offset % PAGE & ~7UL), 8);
		}
	}
	for (u64 i = 0; i < nr_pages; i++)
		moved |= physical_address(pages[i].virt) != pages[i].phys;
	printf("intact=%s", yes_no(!different));
	if (different)
		printf(" first_diff=0x%llx value=0x%016llx bytes=%llu", (ull)first, (ull)seen,
		       (ull)different);
	printf(" moved=%s\n", yes_no(moved));
}

static void dump(u64 nr_pages, u64 offset, u64 length)
{
	if (offset > nr_pages * PAGE || length > nr_pages * PAGE - offset) {
		puts("error=range");
		return;
	}
	fputs("data=", stdout);
	for (u64 i = 0; i < length; i++)
		printf("%02x", byte_at(offset + i));
	putchar('\n');
}

/* Like parse_number(), but a bad word on stdin must not end the holder. */
static bool number(const char *text, u64 *value)
{
	char *end;

	if (!text)
		return false;
	*value = strtoull(text, &end, 0);
	return end != text && !*end;
}

/* Every line gets exactly one line back, so that the caller never waits for nothing. */
static void answer(char *line, u64 nr_pages, u64 *value)
{
	char *word = strtok(line, " \t\r\n");
	char *one = strtok(NULL, " \t\r\n");
	char *two = strtok(NULL, " \t\r\n");
	u64 offset, length;

	if (word && !strcmp(word, "check") && !one) {
		check(nr_pages, *value);
	} else if (word && !strcmp(word, "fill") && number(one, &offset) && !two) {
		*value = offset;
		fill(nr_pages, *value);
		printf("filled=0x%016llx\n", (ull)*value);
	} else if (word && !strcmp(word, "dump") && number(one, &offset) && number(two, &length)) {
		dump(nr_pages, offset, length);
	} else {
		puts("error=command");
	}
}

static int run(int argc, char **argv)
{
	u64 nr_pages = 1, above = 0, below = 0, value = DEFAULT_VALUE;
	const struct opt opts[] = {
		{ "pages", OPT_NUMBER, &nr_pages, NULL },
		{ "above", OPT_NUMBER, &above, NULL },
		{ "below", OPT_NUMBER, &below, NULL },
		{ "value", OPT_NUMBER, &value, NULL },
	};
	char line[256];

	if (!argc || strcmp(argv[0], "hold"))
		misuse("canary hold");
	parse_words(argc - 1, argv + 1, opts, ARRAY_SIZE(opts), NULL, 0, 0);
	if (!nr_pages || nr_pages > MOST_PAGES)
		misuse("--pages must be 1 to %d", MOST_PAGES);
	pages_hold(pages, nr_pages, above, below);
	fill(nr_pages, value);
	for (u64 i = 0; i < nr_pages; i++)
		printf("phys=0x%llx virt=0x%llx\n", (ull)pages[i].phys,
		       (ull)(uintptr_t)pages[i].virt);
	puts("ready=yes");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		answer(line, nr_pages, &value);
		if (fflush(stdout))
			die("write to stdout");
	}
	return ANSWERED;
}

const struct command canary_command = {
	.name = "canary",
	.summary = "hold memory at known physical addresses and tell whether it changed",
	.help =
	"  probe canary hold [--pages N] [--above ADDRESS] [--below ADDRESS] [--value V]\n"
	"\n"
	"Locks N pages (default 1), all between two physical addresses if given, filled with the\n"
	"64-bit word V. Needs root. Prints a line per page, then ready=yes, then obeys stdin, a\n"
	"line for a line, until its end. OFFSET counts through all pages in the order printed.\n"
	"  phys=0x… virt=0x…\n"
	"  ready=yes\n"
	"  check         intact=yes moved=yes|no\n"
	"                intact=no first_diff=0xOFFSET value=0x… bytes=N moved=yes|no\n"
	"                value is the aligned 64-bit word that holds the first changed byte;\n"
	"                moved=yes: the kernel gave the page another physical address\n"
	"  fill V        filled=0x…\n"
	"  dump OFF LEN  data=hex\n"
	"  other lines   error=command or error=range\n",
	.run = run,
};
