// SPDX-License-Identifier: GPL-2.0-or-later
/* A supervisor: what it starts lives no longer than the SSH channel that asked for it. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "probe.h"

static void write_pidfile(const char *path, pid_t pid)
{
	char name[4096];
	FILE *file;

	/* A reader sees all of it or nothing. */
	if (snprintf(name, sizeof(name), "%s.new", path) >= (int)sizeof(name))
		misuse("--pidfile is too long");
	file = fopen(name, "we");
	if (!file || fprintf(file, "%d\n", pid) < 0 || fclose(file) || rename(name, path))
		die("write %s", path);
}

static void __attribute__((noreturn)) become(char **argv, const char *log,
					     const struct texts *env, const sigset_t *mask,
					     pid_t parent, int error_fd)
{
	int null, fd, error;

	setsid();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)	/* it died before prctl() */
		_exit(FAILED);
	for (size_t i = 0; i < env->count; i++)
		putenv(env->text[i]);
	null = open("/dev/null", O_RDONLY);
	dup2(null, STDIN_FILENO);
	close(null);
	if (log) {
		fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
		if (fd < 0)
			goto failed;
		dup2(fd, STDOUT_FILENO);
		dup2(fd, STDERR_FILENO);
		close(fd);
	}
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, mask, NULL);
	execvp(argv[0], argv);
failed:
	error = errno;
	if (write(error_fd, &error, sizeof(error)) < 0)
		_exit(FAILED);
	_exit(127);
}

static pid_t start(char **argv, const char *log, const struct texts *env, const sigset_t *mask)
{
	pid_t parent = getpid(), pid;
	int ends[2], error = 0;

	if (pipe2(ends, O_CLOEXEC))
		die("pipe");
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid)
		become(argv, log, env, mask, parent, ends[1]);
	close(ends[1]);
	/* End of file means that exec() worked. */
	if (read(ends[0], &error, sizeof(error)) == sizeof(error)) {
		waitpid(pid, NULL, 0);
		errno = error;
		die("start %s", argv[0]);
	}
	close(ends[0]);
	return pid;
}

/* SIGKILL every process whose parent we are; orphans became ours (subreaper). */
static void kill_children(void)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;

	if (!proc)
		return;
	while ((entry = readdir(proc))) {
		pid_t pid = atoi(entry->d_name);
		char path[300], text[512], *end;
		ssize_t got;
		int fd, parent;

		if (pid <= 0)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/stat", pid);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		got = read(fd, text, sizeof(text) - 1);
		close(fd);
		text[got > 0 ? got : 0] = '\0';
		/* The name in brackets may hold anything; fields go on after the last one. */
		end = strrchr(text, ')');
		if (end && sscanf(end + 1, " %*c %d", &parent) == 1 && parent == getpid())
			kill(pid, SIGKILL);
	}
	closedir(proc);
}

/* Kill and reap all that is left; its orphans come to us and are next. */
static int sweep(pid_t pid, bool *reaped, int status)
{
	bool look = false;	/* at all of /proc, which is slow: most leave nothing behind */
	int other;
	pid_t dead;

	for (;;) {
		if (!*reaped)
			kill(-pid, SIGKILL);
		if (look)
			kill_children();
		dead = waitpid(-1, &other, *reaped && !look ? WNOHANG : 0);
		if (dead < 0 && errno == EINTR)
			continue;
		if (dead < 0)
			return status;
		if (dead == pid) {
			status = other;
			*reaped = true;
		} else {
			look = true;
		}
	}
}

/*
 * With --socket the one who asked for the program may go and another may come: who is there
 * talks over stdin and stdout, as if there were no socket. Nobody is there at first.
 */
static int door = -1;

static void open_door(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(address.sun_path))
		misuse("--socket is longer than %zu bytes", sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	door = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (door < 0 || bind(door, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(door, 4))
		die("listen on %s", path);
}

/* The parent ends once the program runs, or with the status of what went wrong. */
static int go_to_background(void)
{
	int ends[2], status;
	char byte;

	if (pipe2(ends, O_CLOEXEC))
		die("pipe");
	switch (fork()) {
	case -1:
		die("fork");
	case 0:
		setsid();
		close(ends[0]);
		return ends[1];
	}
	close(ends[1]);
	if (read(ends[0], &byte, 1) == 1)
		_exit(ANSWERED);
	_exit(wait(&status) > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : FAILED);
}

static void let_in(pid_t pid)
{
	int fd = accept4(door, NULL, NULL, SOCK_CLOEXEC);

	if (fd < 0)
		die("accept");
	dup2(fd, STDIN_FILENO);
	dup2(fd, STDOUT_FILENO);
	close(fd);
	printf("pid=%d\n", pid);
	fflush(stdout);
}

static void say_goodbye(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	close(null);
}

/* Returns why the wait is over: "itself", "eof" or "signal". */
static const char *watch(pid_t pid, const sigset_t *signals, bool *reaped, int *status,
			 bool *visited)
{
	int fd = signalfd(-1, signals, SFD_CLOEXEC);
	struct signalfd_siginfo info;
	bool goes = false;	/* who is there has said that the program shall stay */
	char said[4096];
	ssize_t got;

	if (fd < 0)
		die("signalfd");
	for (;;) {
		struct pollfd fds[2] = {
			{ .fd = *visited ? STDIN_FILENO : door, .events = POLLIN },
			{ .fd = fd, .events = POLLIN },
		};
		pid_t dead;
		int other;

		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			die("poll");
		if (fds[1].revents) {
			if (read(fd, &info, sizeof(info)) != sizeof(info))
				die("read signals");
			if (info.ssi_signo != SIGCHLD)
				return "signal";
			/* One SIGCHLD may stand for several. */
			while ((dead = waitpid(-1, &other, WNOHANG)) > 0) {
				if (dead != pid)
					continue;
				*status = other;
				*reaped = true;
				return "itself";
			}
			continue;
		}
		if (!fds[0].revents)
			continue;
		if (!*visited) {
			let_in(pid);
			*visited = true;
			continue;
		}
		got = read(STDIN_FILENO, said, sizeof(said));
		if (got > 0) {
			goes = goes || (door >= 0 && memmem(said, (size_t)got, "stay\n", 5));
		} else if (goes) {
			say_goodbye();
			*visited = goes = false;
		} else {
			return "eof";
		}
	}
}

static const char *directory;	/* made by us, absolute, or NULL */

static void remove_directory(void)
{
	DIR *there = opendir(directory);
	struct dirent *entry;

	if (!there)
		return;
	while ((entry = readdir(there)))
		unlinkat(dirfd(there), entry->d_name, 0);
	closedir(there);
	rmdir(directory);
}

static void make_directory(const char *path)
{
	if (path[0] != '/')
		misuse("--directory must be absolute, not '%s'", path);
	if (mkdir(path, 0700))
		die("make %s", path);
	directory = path;
	atexit(remove_directory);
}

/* Write one file to stdout: nobody writes to it any more, so its size is known. */
static bool show_file(int at, const char *name)
{
	char bytes[65536];
	bool shown = false;
	struct stat stat;
	off_t left;
	int fd = openat(at, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	if (fd < 0)		/* a socket */
		return false;
	if (fstat(fd, &stat) || !S_ISREG(stat.st_mode) || strpbrk(name, " \n"))
		goto out;
	printf("file=%s size=%lld\n", name, (long long)stat.st_size);
	for (left = stat.st_size; left > 0;) {
		ssize_t got = read(fd, bytes, left < (off_t)sizeof(bytes) ? (size_t)left : sizeof(bytes));

		if (got <= 0)
			fail("%s became shorter", name);
		fwrite(bytes, 1, (size_t)got, stdout);
		left -= got;
	}
	shown = true;
out:
	close(fd);
	return shown;
}

static void show_directory(void)
{
	DIR *there = opendir(directory);
	struct dirent *entry;
	unsigned int shown = 0;

	if (!there)
		die("read %s", directory);
	while ((entry = readdir(there)))
		shown += show_file(dirfd(there), entry->d_name);
	closedir(there);
	printf("shown=%u\n", shown);
}

static int run(int argc, char **argv)
{
	char *log = NULL, *pidfile = NULL, *wanted = NULL, *path = NULL;
	struct texts env = { .count = 0 };
	const struct opt opts[] = {
		{ "log", OPT_TEXT, &log, NULL },
		{ "pidfile", OPT_TEXT, &pidfile, NULL },
		{ "directory", OPT_TEXT, &wanted, NULL },
		{ "socket", OPT_TEXT, &path, NULL },
		{ "env", OPT_TEXTS, &env, NULL },
	};
	sigset_t signals, before;
	bool reaped = false, visited = true;
	int own, status = 0, started_fd = -1;
	const char *why;
	pid_t pid;

	for (own = 0; own < argc && strcmp(argv[own], "--"); own++)
		;
	parse_words(own, argv, opts, ARRAY_SIZE(opts), NULL, 0, 0);
	if (own + 1 >= argc)
		misuse("run needs '-- PROGRAM [WORDS]'");
	for (size_t i = 0; i < env.count; i++)
		if (!strchr(env.text[i], '='))
			misuse("--env needs NAME=VALUE, not '%s'", env.text[i]);

	if (wanted)
		make_directory(wanted);
	if (path) {
		open_door(path);
		started_fd = go_to_background();
		visited = false;
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	/* The channel may be gone when the end is reported; the killing comes first. */
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, &before);

	pid = start(argv + own + 1, log, &env, &before);
	printf("pid=%d\n", pid);
	fflush(stdout);
	if (pidfile)
		write_pidfile(pidfile, pid);
	if (path) {
		if (write(started_fd, "", 1) != 1)
			die("tell that it runs");
		close(started_fd);
		say_goodbye();
		dup2(STDOUT_FILENO, STDERR_FILENO);
	}
	why = watch(pid, &signals, &reaped, &status, &visited);
	status = sweep(pid, &reaped, status);
	if (!visited && strcmp(why, "signal"))
		let_in(pid);	/* how it ended is for the next who comes */
	if (pidfile)
		unlink(pidfile);
	printf("ended=%s\n", why);
	if (WIFSIGNALED(status))
		printf("signal=%d\n", WTERMSIG(status));
	else
		printf("exit=%d\n", WEXITSTATUS(status));
	if (directory) {
		fflush(stdout);		/* how it ended must not wait for the files */
		show_directory();
	}
	return ANSWERED;
}

const struct command run_command = {
	.name = "run",
	.summary = "start a program that dies with stdin",
	.help =
	"  probe run [--log FILE] [--pidfile FILE] [--directory DIR] [--env NAME=VALUE]…\n"
	"            [--socket SOCKET] -- PROGRAM [WORDS]\n"
	"\n"
	"PROGRAM runs in a session of its own, stdin from /dev/null, its output appended to FILE\n"
	"or passed through. It and all its descendants are killed when our stdin ends, at\n"
	"SIGTERM, SIGHUP or SIGINT, when we are killed, and what it leaves behind when it ends.\n"
	"The pidfile is removed at the end. DIR is made first, and at the end shown and removed.\n"
	"With a SOCKET it goes on in the background: who connects gets what follows, pid first, and\n"
	"its end is the end of our input, unless it said 'stay' and a line end before.\n"
	"  pid=N                    once it runs; first with --log, as PROGRAM itself may be faster\n"
	"  ended=itself|eof|signal\n"
	"  exit=N, or signal=N      how it ended; our status is 0\n"
	"  file=NAME size=N         then N bytes, for each file in DIR\n"
	"  shown=N                  files; then all were shown\n",
	.run = run,
};
