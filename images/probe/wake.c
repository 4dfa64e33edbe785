// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The door of a system of ours: told over a serial line who may log in, it lets them in.
 *
 * A system may have been saved before and be running now for the second time, or be one of
 * several that were saved as one. What must not be the same in all of them is in the line that
 * opens the door: time, entropy, identity, the key of the host and of the one who logs in.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "probe.h"

#define HOST_KEY	"/run/trapline/hostkey"
#define SERVER_LOG	"/run/dropbear.log"
#define BOOT_ID		"/run/trapline/boot-id"
#define MACHINE_ID	"/run/trapline/machine-id"
#define AUTHORIZED	"/run/trapline/authorized"

#define DIGITS		"0123456789"
#define HEX		DIGITS "abcdef"
#define BASE64		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" DIGITS "+/"

/* What a line says, understood as a whole before anything is done. */
struct wake {
	struct timespec clock;
	struct {
		struct rand_pool_info head;
		u8 bytes[64];
	} entropy;
	const char *machine, *authorized;
	/* As dropbear keeps it: two SSH strings, the kind, and the seed with the public half. */
	struct {
		u8 head[4 + 11 + 4];
		u8 pair[64];
	} hostkey;
};

/* A line that is refused is answered, and the next one may be better. */
static char complaint[200];

static bool refuse(const char *what)
{
	snprintf(complaint, sizeof(complaint), "%s: %s", what, strerror(errno));
	return false;
}

/* Bytes of a base64 text, which may end in "=", or -1. */
static ssize_t from_base64(const char *text, u8 *bytes, size_t room)
{
	size_t length = strspn(text, BASE64), done = 0;
	u32 bits = 0;
	int have = 0;

	errno = EINVAL;
	if (text[length + strspn(text + length, "=")] || length % 4 == 1)
		return -1;
	for (size_t i = 0; i < length; i++) {
		bits = bits << 6 | (u32)(strchr(BASE64, text[i]) - BASE64);
		have += 6;
		if (have < 8)
			continue;
		have -= 8;
		if (done == room)
			return -1;
		bytes[done++] = (u8)(bits >> have);
	}
	return (ssize_t)done;
}

static bool write_file(const char *path, const void *bytes, size_t length)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	bool whole;

	if (fd < 0)
		return refuse(path);
	whole = write(fd, bytes, length) == (ssize_t)length;
	close(fd);
	return whole || refuse(path);
}

static bool read_clock(const char *text, struct timespec *clock)
{
	size_t seconds = strspn(text, DIGITS), rest = strlen(text) - seconds;

	*clock = (struct timespec){ .tv_sec = strtoll(text, NULL, 10) };
	if (!seconds || seconds > 12)
		return false;
	if (!rest)
		return true;
	if (rest != 10 || text[seconds] != '.' || strspn(text + seconds + 1, DIGITS) != 9)
		return false;
	clock->tv_nsec = strtol(text + seconds + 1, NULL, 10);
	return true;
}

static bool read_entropy(const char *text, struct rand_pool_info *head, u8 *bytes, size_t room)
{
	ssize_t length = from_base64(text, bytes, room);

	head->entropy_count = (int)length * 8;
	head->buf_size = (int)length;
	return length >= 32;
}

static bool read_hostkey(const char *text, struct wake *wake)
{
	memcpy(wake->hostkey.head, "\0\0\0\013ssh-ed25519\0\0\0\100", sizeof(wake->hostkey.head));
	return from_base64(text, wake->hostkey.pair, sizeof(wake->hostkey.pair)) == 64;
}

/* New bytes go in, and the generator is made anew from them at once (random(4)). */
static bool reseed(const struct wake *wake)
{
	int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	bool done;

	if (fd < 0)
		return refuse("/dev/urandom");
	done = !ioctl(fd, RNDADDENTROPY, &wake->entropy) && !ioctl(fd, RNDRESEEDCRNG);
	close(fd);
	return done || refuse("reseed");
}

/* The system has them where they belong: by links, the boot id by a mount over the kernel's. */
static bool name_machine(const char *text)
{
	char line[40];

	snprintf(line, sizeof(line), "%.32s\n", text);
	if (!write_file(MACHINE_ID, line, strlen(line)))
		return false;
	snprintf(line, sizeof(line), "%.8s-%.4s-%.4s-%.4s-%.12s\n", text, text + 8, text + 12,
		 text + 16, text + 20);
	return write_file(BOOT_ID, line, strlen(line));
}

static bool change_keys(const struct wake *wake)
{
	char line[200];

	snprintf(line, sizeof(line), "ssh-ed25519 %s trapline\n", wake->authorized);
	return write_file(AUTHORIZED, line, strlen(line)) &&
	       write_file(HOST_KEY, &wake->hostkey, sizeof(wake->hostkey));
}

/* Each word once, in any order; false says which one is missing or cannot be understood. */
static bool understand(char *line, struct wake *wake)
{
	const char *clock = NULL, *entropy = NULL, *hostkey = NULL;
	struct { const char *name; const char **value; } words[] = {
		{ "clock=", &clock }, { "entropy=", &entropy }, { "machine=", &wake->machine },
		{ "authorized=", &wake->authorized }, { "hostkey=", &hostkey },
	};
	size_t length;

	for (char *word = strtok(line, " "); word; word = strtok(NULL, " "))
		for (size_t i = 0; i < ARRAY_SIZE(words); i++)
			if (!strncmp(word, words[i].name, strlen(words[i].name)))
				*words[i].value = word + strlen(words[i].name);
	errno = ENODATA;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (!*words[i].value)
			return refuse(words[i].name);
	errno = EINVAL;
	if (!read_clock(clock, &wake->clock))
		return refuse("clock");
	if (!read_entropy(entropy, &wake->entropy.head, wake->entropy.bytes,
			  sizeof(wake->entropy.bytes)))
		return refuse("entropy");
	if (strlen(wake->machine) != 32 || strspn(wake->machine, HEX) != 32)
		return refuse("machine");
	length = strlen(wake->authorized);
	if (!length || length > 160 || strspn(wake->authorized, BASE64 "=") != length)
		return refuse("authorized");
	return read_hostkey(hostkey, wake) || refuse("hostkey");
}

static bool wake_up(char *line)
{
	struct wake wake = { 0 };

	if (!understand(line, &wake))
		return false;
	if (clock_settime(CLOCK_REALTIME, &wake.clock))
		return refuse("clock");
	return reseed(&wake) && name_machine(wake.machine) && change_keys(&wake);
}

static int listen_on(u16 port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	if (fd < 0)
		die("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 16))
		die("listen on port %d", port);
	return fd;
}

/* One server for each connection, as inetd would: nothing is kept between two. */
static void let_in(int door, char **server)
{
	int fd = accept4(door, NULL, NULL, SOCK_CLOEXEC), log, on = 1;

	if (fd < 0)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (!fork()) {
		setsid();
		signal(SIGCHLD, SIG_DFL);
		log = open(SERVER_LOG, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		dup2(fd, STDIN_FILENO);
		dup2(fd, STDOUT_FILENO);
		dup2(log, STDERR_FILENO);
		execvp(server[0], server);
		_exit(127);
	}
	close(fd);
}

static int open_line(const char *path)
{
	struct termios line;
	int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (fd < 0)
		die("open %s", path);
	if (tcgetattr(fd, &line))
		die("%s is no serial line", path);
	cfmakeraw(&line);
	cfsetspeed(&line, B115200);
	line.c_cflag |= CLOCAL | CREAD;
	tcsetattr(fd, TCSANOW, &line);
	tcflush(fd, TCIOFLUSH);
	return fd;
}

static void answer(int line, bool well)
{
	char text[256];
	int length = well ? snprintf(text, sizeof(text), "awake\n")
			  : snprintf(text, sizeof(text), "refused %s\n", complaint);

	if (write(line, text, (size_t)length) < 0)
		return;
}

static void serve(int line, char **server) __attribute__((noreturn));

static void serve(int line, char **server)
{
	struct pollfd fds[2] = { { .fd = line, .events = POLLIN },
				 { .fd = -1, .events = POLLIN } };
	char text[4096], *end;
	size_t have = 0;
	ssize_t got;
	bool well;

	for (;;) {
		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[1].revents & POLLIN)
			let_in(fds[1].fd, server);
		if (!fds[0].revents)
			continue;
		got = read(line, text + have, sizeof(text) - 1 - have);
		if (got <= 0) {		/* nobody is at the other end of the line */
			pause_ms(50);
			continue;
		}
		for (size_t end_of_news = have + (size_t)got; have < end_of_news; have++)
			if (!text[have])	/* noise: it would hide what comes behind */
				text[have] = ' ';
		text[have] = '\0';
		while ((end = strchr(text, '\n'))) {
			*end = '\0';
			well = wake_up(text);
			/* Listening comes before the answer: who hears it may knock at once. */
			if (well && fds[1].fd < 0)
				fds[1].fd = listen_on(22);
			answer(line, well);
			have -= (size_t)(end + 1 - text);
			memmove(text, end + 1, have + 1);
		}
		if (have == sizeof(text) - 1)
			have = 0;	/* noise */
	}
}

static int wake(int argc, char **argv)
{
	int line, null;

	if (argc < 3 || strcmp(argv[1], "--"))
		misuse("wake needs 'LINE -- SERVER [WORDS]'");
	line = open_line(argv[0]);
	signal(SIGCHLD, SIG_IGN);
	switch (fork()) {
	case -1:
		die("fork");
	case 0:
		break;
	default:
		return ANSWERED;
	}
	setsid();
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	serve(line, argv + 2);
}

const struct command wake_command = {
	.name = "wake",
	.summary = "wait on a serial line for who may log in, then let them",
	.help =
	"  probe wake LINE -- SERVER [WORDS]\n"
	"\n"
	"Goes to the background and waits for lines such as\n"
	"  clock=SECONDS.NANOSECONDS entropy=BASE64 machine=HEX authorized=BASE64 hostkey=BASE64\n"
	"where the host key is an ed25519 seed with its public half.\n"
	"Sets the wall clock, feeds and reseeds the random generator, writes machine-id, boot-id,\n"
	"authorized and hostkey in /run/trapline, which must be there, and answers on the line with\n"
	"  awake, or refused WHAT: WHY\n"
	"and from the first one on starts SERVER for each connection to port 22, its stdin and\n"
	"stdout the connection (as dropbear -i wants it; the host key is " HOST_KEY ").\n",
	.run = wake,
};
