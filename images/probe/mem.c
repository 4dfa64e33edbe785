// SPDX-License-Identifier: GPL-2.0-or-later
/* Loads and stores to a mapped file: a sysfs resourceN, /dev/mem, any file. */
#define _GNU_SOURCE
#include <sched.h>
#include <string.h>

#include "probe.h"

struct job {
	struct access access;
	volatile u8 *where;
	bool warm;
};

static void work(void *arg)
{
	struct job *job = arg;

	/* The first touch of a page exits to build its mapping; it is not to be counted. */
	if (job->warm)
		(void)load(job->where, job->access.width);
	access_memory(&job->access, job->where);
}

static void pin(u64 cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu % CPU_SETSIZE, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("pin to cpu %llu", (ull)cpu);
}

static int touch(bool write, int argc, char **argv)
{
	u64 width = 4, count = 1, value = 0, cpu = 0, offset;
	bool given = false, pinned = false, warm = false;
	const struct opt opts[] = {
		{ "width", OPT_NUMBER, &width, NULL },
		{ "count", OPT_NUMBER, &count, NULL },
		{ "value", OPT_NUMBER, &value, &given },
		{ "warm", OPT_FLAG, &warm, NULL },
		{ "cpu", OPT_NUMBER, &cpu, &pinned },
	};
	struct job job;
	char *words[2];

	parse_words(argc, argv, opts, ARRAY_SIZE(opts), words, 2, 2);
	offset = parse_number("OFFSET", words[1]);
	if (write != given)
		misuse(write ? "mem write needs --value" : "mem read takes no --value");
	job = (struct job) {
		.access = {
			.width = (unsigned int)parse_width(width, offset, 8),
			.write = write,
			.count = count,
			.value = value,
		},
		.warm = warm,
	};
	if (pinned)
		pin(cpu);
	job.where = map_file(words[0], offset, width, write);
	if (!survives(work, &job))
		puts("fault=sigbus");
	access_print(&job.access);
	return ANSWERED;
}

struct dump {
	volatile u8 *where;
	u64 count, done;
};

static void dump_words(void *arg)
{
	struct dump *dump = arg;

	for (; dump->done < dump->count; dump->done++)
		printf("%s%08x", dump->done ? "," : "",
		       (u32)load(dump->where + dump->done * 4, 4));
}

static int words_of(int argc, char **argv)
{
	struct dump dump = { 0 };
	char *words[3];
	u64 offset;
	bool alive;

	parse_words(argc, argv, NULL, 0, words, 3, 3);
	offset = parse_number("OFFSET", words[1]);
	parse_width(4, offset, 4);
	dump.count = parse_number("COUNT", words[2]);
	if (!dump.count || dump.count > 1 << 24)
		misuse("COUNT must be 1 to 16M");
	dump.where = map_file(words[0], offset, dump.count * 4, false);
	fputs("words=", stdout);
	alive = survives(dump_words, &dump);
	putchar('\n');
	if (!alive)
		puts("fault=sigbus");
	printf("done=%llu\n", (ull)dump.done);
	return ANSWERED;
}

static int run(int argc, char **argv)
{
	if (argc && !strcmp(argv[0], "read"))
		return touch(false, argc - 1, argv + 1);
	if (argc && !strcmp(argv[0], "write"))
		return touch(true, argc - 1, argv + 1);
	if (argc && !strcmp(argv[0], "words"))
		return words_of(argc - 1, argv + 1);
	misuse("mem read, mem write or mem words");
}

const struct command mem_command = {
	.name = "mem",
	.summary = "loads and stores to a mapped file (sysfs resourceN)",
	.help =
	"  probe mem read FILE OFFSET [--width 1|2|4|8] [--count N] [--warm] [--cpu N]\n"
	"  probe mem write FILE OFFSET --value V [--width 1|2|4|8] [--count N] [--warm] [--cpu N]\n"
	"  probe mem words FILE OFFSET COUNT\n"
	"\n"
	"N accesses (default 1) of exactly that width (default 4) to one aligned offset. --warm\n"
	"loads once before, uncounted; --cpu runs them on one cpu. The file is mapped at once,\n"
	"so a memory BAR must be enabled (COMMAND.MSE) by the caller.\n"
	"  first=0x… last=0x… equal=yes|no   what was read, a line each\n"
	"  written=0x…                       mem write\n"
	"  words=hex,hex,…                   mem words, 32 bits each\n"
	"  fault=sigbus                      an access was refused; it ends the run, status 0\n"
	"  done=N                            accesses that worked\n",
	.run = run,
};
