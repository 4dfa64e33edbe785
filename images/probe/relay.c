// SPDX-License-Identifier: GPL-2.0-or-later
/* stdin and stdout joined to a Unix socket: how QMP and consoles travel over SSH. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "probe.h"

struct flow {
	int from, to;
	size_t begin, end;
	bool ended;		/* nothing more will come from "from" */
	bool passed_on;		/* and "to" has been told */
	char bytes[65536];
};

/* SSH to stdin is "up", the socket to stdout is "down". */
static struct flow up, down;

static int connect_until(const char *path, u64 deadline)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(path) >= sizeof(address.sun_path))
		misuse("socket path is longer than %zu bytes", sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	for (;;) {
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0)
			die("socket");
		if (!connect(fd, (struct sockaddr *)&address, sizeof(address)))
			return fd;
		/* Not there yet, or there and not yet listening. */
		if (errno != ENOENT && errno != ECONNREFUSED && errno != EAGAIN)
			die("connect to %s", path);
		if (now_ms() >= deadline) {
			const char *why = strerror(errno);

			late("connect to %s: %s", path, why);
		}
		close(fd);
		pause_ms(20);
	}
}

static bool empty(const struct flow *flow)
{
	return flow->begin == flow->end;
}

static void pull(struct flow *flow)
{
	ssize_t got = read(flow->from, flow->bytes, sizeof(flow->bytes));

	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	/* A reset is how a dying QEMU says goodbye. */
	if (got < 0 && errno != ECONNRESET)
		die("read");
	flow->begin = 0;
	flow->end = got > 0 ? (size_t)got : 0;
	flow->ended = got <= 0;
}

/*
 * stdin and stdout are not ours to make non-blocking (they may be shared), so write no more
 * than what poll() promises to take: PIPE_BUF bytes.
 */
static bool push(struct flow *flow)
{
	size_t left = flow->end - flow->begin;
	ssize_t sent = write(flow->to, flow->bytes + flow->begin, left < 4096 ? left : 4096);

	if (sent < 0 && (errno == EINTR || errno == EAGAIN))
		return true;
	if (sent < 0)
		return false;
	flow->begin += (size_t)sent;
	return true;
}

static int shovel(int fd)
{
	up = (struct flow) { .from = STDIN_FILENO, .to = fd };
	down = (struct flow) { .from = fd, .to = STDOUT_FILENO };

	for (;;) {
		struct pollfd in = { .fd = -1 }, sock = { .fd = fd }, out = { .fd = STDOUT_FILENO };
		struct pollfd fds[3];

		if (up.ended && empty(&up) && !up.passed_on) {
			shutdown(fd, SHUT_WR);
			up.passed_on = true;
		}
		if (down.ended && empty(&down))
			return ANSWERED;
		if (!up.ended && empty(&up))
			in = (struct pollfd) { .fd = STDIN_FILENO, .events = POLLIN };
		if (!empty(&up))
			sock.events |= POLLOUT;
		if (!down.ended && empty(&down))
			sock.events |= POLLIN;
		if (!sock.events)
			sock.fd = -1;	/* POLLHUP of a closed peer would spin */
		if (!empty(&down))
			out.events = POLLOUT;
		fds[0] = in;
		fds[1] = sock;
		fds[2] = out;
		if (poll(fds, 3, -1) < 0) {
			if (errno == EINTR)
				continue;
			die("poll");
		}
		if (fds[0].revents)
			pull(&up);
		if (!empty(&up) && fds[1].revents & (POLLOUT | POLLERR | POLLHUP) && !push(&up)) {
			/* The peer takes no more; it may still have something to say. */
			up.begin = up.end;
			up.ended = true;
			up.passed_on = true;
		}
		if (!down.ended && empty(&down) && fds[1].revents & (POLLIN | POLLERR | POLLHUP))
			pull(&down);
		if (!empty(&down) && fds[2].revents && !push(&down))
			die("write to stdout");
		/* Nobody reads any more: let go of the socket, others may want it. */
		if (empty(&down) && fds[2].revents & POLLERR)
			fail("stdout was closed");
	}
}

static int run(int argc, char **argv)
{
	u64 wait = 0;
	const struct opt opts[] = { { "wait", OPT_SECONDS, &wait, NULL } };
	char *words[1];

	parse_words(argc, argv, opts, ARRAY_SIZE(opts), words, 1, 1);
	signal(SIGPIPE, SIG_IGN);
	return shovel(connect_until(words[0], now_ms() + wait));
}

const struct command relay_command = {
	.name = "relay",
	.summary = "join stdin and stdout to a Unix socket",
	.help =
	"  probe relay PATH [--wait SECONDS]\n"
	"\n"
	"Connects to PATH, trying again until the deadline (default: once; status 3 when it\n"
	"passed). The end of stdin closes the sending half only; the relay ends with status 0\n"
	"at the end of the socket. It prints nothing of its own.\n",
	.run = run,
};
