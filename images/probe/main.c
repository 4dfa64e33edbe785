// SPDX-License-Identifier: GPL-2.0-or-later
/* Choose the subcommand, or teach. */
#include <string.h>

#include "probe.h"

static const struct command *const commands[] = {
	&relay_command, &run_command, &mem_command, &port_command, &config_command,
	&canary_command, &edu_command, &vfio_command, &kvm_command, &block_command,
	&wake_command, &await_command, &nvme_command,
};

static const struct command *find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(commands[i]->name, name))
			return commands[i];
	misuse("unknown subcommand '%s'", name);
}

static int teach(const struct command *only)
{
	if (only) {
		printf("probe %s: %s\n\n%s", only->name, only->summary, only->help);
		return ANSWERED;
	}
	puts("probe SUBCOMMAND [WORDS] [--OPTIONS]: touch devices exactly, answer in key=value\n");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		printf("  %-8s %s\n", commands[i]->name, commands[i]->summary);
	puts("\n'probe help SUBCOMMAND' gives its syntax and output.\n"
	     "Numbers: decimal or 0x hex, with k, M or G. Times: seconds, 0.5 is allowed.\n"
	     "Answers: lines of blank-separated key=value pairs on stdout.\n"
	     "Exit status: 0 answered, 1 failed (reason on stderr), 2 usage, 3 a deadline passed.");
	return ANSWERED;
}

int main(int argc, char **argv)
{
	const struct command *command;
	int status;

	if (argc < 2)
		return teach(NULL);
	if (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help"))
		return teach(argc > 2 ? find(argv[2]) : NULL);
	command = find(argv[1]);
	if (argc > 2 && (!strcmp(argv[2], "--help") || !strcmp(argv[2], "help")))
		return teach(command);
	status = command->run(argc - 2, argv + 2);
	/* A full disk or a closed pipe must not look like an answer. */
	if (fflush(stdout))
		die("write to stdout");
	return status;
}
