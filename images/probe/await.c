// SPDX-License-Identifier: GPL-2.0-or-later
/* Wait until the kernel shows something: woken by its events, never by a clock. */
#define _GNU_SOURCE
#include <errno.h>
#include <glob.h>
#include <linux/netlink.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "probe.h"

static int listen_to_events(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)))
		die("listen to events of the kernel");
	return fd;
}

/* The first pattern that matches nothing, or NULL; every match is printed if asked for. */
static const char *missing(char **patterns, int count, bool print)
{
	const char *first = NULL;

	for (int i = 0; i < count; i++) {
		glob_t found;

		if (glob(patterns[i], GLOB_NOSORT, NULL, &found) && !first)
			first = patterns[i];
		for (size_t j = 0; print && !first && j < found.gl_pathc; j++)
			printf("path=%s\n", found.gl_pathv[j]);
		globfree(&found);
	}
	return first;
}

static int await_paths(int argc, char **argv)
{
	u64 timeout = 30000, deadline, now;
	const struct opt opts[] = { { "timeout", OPT_SECONDS, &timeout, NULL } };
	char *patterns[64], event[8192];
	const char *what;
	int count, fd;

	count = parse_words(argc, argv, opts, ARRAY_SIZE(opts), patterns, 1, ARRAY_SIZE(patterns));
	fd = listen_to_events();
	deadline = now_ms() + timeout;
	/* In this order: what comes between a look and the wait has its event waiting. */
	while ((what = missing(patterns, count, false))) {
		struct pollfd news = { .fd = fd, .events = POLLIN };

		now = now_ms();
		if (now >= deadline)
			late("%s did not appear", what);
		if (poll(&news, 1, (int)(deadline - now)) > 0)
			while (recv(fd, event, sizeof(event), MSG_DONTWAIT) > 0)
				;
	}
	missing(patterns, count, true);
	return ANSWERED;
}

const struct command await_command = {
	.name = "await",
	.summary = "wait until paths of sysfs are there",
	.help =
	"  probe await [--timeout SECONDS] PATTERN…\n"
	"\n"
	"Waits until each shell pattern matches something, looking again at each event of the\n"
	"kernel (a device came, a driver took it). Exit status 3 after SECONDS (default 30).\n"
	"  path=PATH                each match\n",
	.run = await_paths,
};
