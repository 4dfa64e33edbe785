// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The agent of an AP host: commands and files of a small Linux, over one stream.
 *
 *   trapline-agent DEVICE
 *
 * DEVICE is a virtio-serial port, or "-" for stdin and stdout (over SSH). Frames go both ways:
 *
 *   length (4 bytes, of what follows the head), channel (4), kind (1), then the content
 *
 * all numbers big-endian. Kinds from the other side:
 *   H  hello: forget everything before, kill what runs; answered by H with the same content
 *   B  batch of file operations; answered by A when all are done, whatever comes meanwhile
 *   X  start a program: words, each ended by a NUL
 *   I  bytes for its input;  E  end of its input;  K  kill its group
 * From here:
 *   A  answer;  O, R  bytes of its output and error output;  S  its status as waitpid() has it:
 *      the channel is free again;  F  it could not be started: errno
 *
 * A batch is a row of operations: kind (1), length (4), path, length (4), data. The answer has
 * for each: errno (4), length (4), data. Operations:
 *   r  read a file        w  write to it, in one write()     l  read a symbolic link
 *   d  names in a directory, each ended by a NUL              s  size (lstat), decimal
 *   k  records of /dev/kmsg from sequence number (data) on, each ended by a NUL
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LARGEST		(32u << 20)	/* of a frame, and of a file that is read */
#define HEAD		9

struct bytes {
	char *data;
	size_t size, room;
};

struct channel {
	struct channel *next;
	uint32_t number;
	pid_t pid;
	int input, wake;		/* input: -1 once it is closed */
	bool ends;			/* close the input when all that waits is written */
	bool orphan;			/* nobody wants to hear of it any more */
	struct bytes waiting;
};

static int from_fd, to_fd;
static pthread_mutex_t sending = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t table = PTHREAD_MUTEX_INITIALIZER;
static struct channel *channels;
static uint32_t age;			/* hellos so far: answers of an earlier age are dropped */

static void __attribute__((noreturn)) die(const char *what)
{
	fprintf(stderr, "trapline-agent: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void add(struct bytes *to, const void *data, size_t size)
{
	if (to->size + size > to->room) {
		to->room = (to->size + size) * 2;
		to->data = realloc(to->data, to->room);
		if (!to->data)
			die("memory");
	}
	if (size)
		memcpy(to->data + to->size, data, size);
	to->size += size;
}

static void add_number(struct bytes *to, uint32_t number)
{
	number = htonl(number);
	add(to, &number, sizeof(number));
}

static uint32_t number_at(const char *data)
{
	uint32_t number;

	memcpy(&number, data, sizeof(number));
	return ntohl(number);
}

/* A port whose other end is closed says "end of file" and comes back; a stream does not. */
static bool is_port(void)
{
	return from_fd == to_fd;
}

static void push(const char *data, size_t size)
{
	while (size) {
		ssize_t sent = write(to_fd, data, size);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && !is_port())
			exit(0);
		if (sent <= 0) {
			poll(NULL, 0, 10);
			continue;
		}
		data += sent;
		size -= (size_t)sent;
	}
}

/* Drops what belongs to an age that is over. */
static void say(uint32_t when, uint32_t channel, char kind, const void *data, size_t size)
{
	struct bytes frame = { 0 };

	add_number(&frame, (uint32_t)size);
	add_number(&frame, channel);
	add(&frame, &kind, 1);
	add(&frame, data, size);
	pthread_mutex_lock(&sending);
	if (when == age)
		push(frame.data, frame.size);
	pthread_mutex_unlock(&sending);
	free(frame.data);
}

static void pull(char *data, size_t size)
{
	while (size) {
		ssize_t got = read(from_fd, data, size);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0 && !is_port())
			exit(0);
		if (got <= 0) {		/* nobody there yet, or not any more */
			poll(NULL, 0, 10);
			continue;
		}
		data += got;
		size -= (size_t)got;
	}
}

/* Files */

static int read_file(const char *path, struct bytes *into)
{
	char chunk[65536];
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), error = 0;
	ssize_t got;

	if (fd < 0)
		return errno;
	while ((got = read(fd, chunk, sizeof(chunk))) > 0) {
		if (into->size + (size_t)got > LARGEST) {
			error = EFBIG;
			break;
		}
		add(into, chunk, (size_t)got);
	}
	if (got < 0)
		error = errno;
	close(fd);
	return error;
}

static int write_file(const char *path, const char *data, size_t size)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC), error = 0;
	ssize_t sent;

	if (fd < 0 && errno == ENOENT) {
		fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
		if (fd < 0)	/* sysfs has no such attribute, and another word for it */
			return ENOENT;
	}
	if (fd < 0)
		return errno;
	sent = write(fd, data, size);
	if (sent < 0)
		error = errno;
	else if ((size_t)sent != size)
		error = ENOSPC;
	close(fd);
	return error;
}

static int list_directory(const char *path, struct bytes *into)
{
	DIR *there = opendir(path);
	struct dirent *entry;

	if (!there)
		return errno;
	while ((entry = readdir(there)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			add(into, entry->d_name, strlen(entry->d_name) + 1);
	closedir(there);
	return 0;
}

static int read_log(const char *path, const char *from, struct bytes *into)
{
	unsigned long long first = strtoull(from, NULL, 10), number;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), error = 0;
	char record[8192];

	if (fd < 0)
		return errno;
	for (;;) {
		ssize_t got = read(fd, record, sizeof(record) - 1);

		if (got < 0 && (errno == EPIPE || errno == EINTR))	/* overwritten meanwhile */
			continue;
		if (got <= 0) {
			error = got < 0 && errno != EAGAIN ? errno : 0;
			break;
		}
		record[got] = '\0';
		if (sscanf(record, "%*u,%llu", &number) == 1 && number >= first)
			add(into, record, strlen(record) + 1);
	}
	close(fd);
	return error;
}

static int operate(char kind, const char *path, const char *data, size_t size, struct bytes *into)
{
	char text[4096];
	struct stat stat;
	ssize_t got;

	switch (kind) {
	case 'r':
		return read_file(path, into);
	case 'w':
		return write_file(path, data, size);
	case 'l':
		got = readlink(path, text, sizeof(text));
		if (got < 0)
			return errno;
		add(into, text, (size_t)got);
		return 0;
	case 'd':
		return list_directory(path, into);
	case 's':
		if (lstat(path, &stat))
			return errno;
		add(into, text, (size_t)sprintf(text, "%lld", (long long)stat.st_size));
		return 0;
	case 'k':
		return read_log(path, data, into);
	}
	return ENOSYS;
}

struct batch {
	uint32_t when, channel;
	struct bytes content;
};

/* Return the next text with a NUL behind it, to be freed; NULL if the row is cut short. */
static char *next_text(struct batch *batch, size_t *at, size_t *size)
{
	size_t left = batch->content.size - *at;
	char *text;

	if (left < 4 || left - 4 < number_at(batch->content.data + *at))
		return NULL;
	*size = number_at(batch->content.data + *at);
	text = malloc(*size + 1);
	if (!text)
		die("memory");
	memcpy(text, batch->content.data + *at + 4, *size);
	text[*size] = '\0';
	*at += 4 + *size;
	return text;
}

static void *work_on(void *argument)
{
	struct batch *batch = argument;
	struct bytes answer = { 0 };
	size_t at = 0, length, size;

	while (at < batch->content.size) {
		char kind = batch->content.data[at++];
		struct bytes found = { 0 };
		char *path = next_text(batch, &at, &length);
		char *data = path ? next_text(batch, &at, &size) : NULL;
		int error = data ? operate(kind, path, data, size, &found) : EBADMSG;

		add_number(&answer, (uint32_t)error);
		add_number(&answer, (uint32_t)found.size);
		add(&answer, found.data, found.size);
		free(found.data);
		free(path);
		free(data);
		if (error == EBADMSG)
			break;
	}
	say(batch->when, batch->channel, 'A', answer.data, answer.size);
	free(answer.data);
	free(batch->content.data);
	free(batch);
	return NULL;
}

static void in_thread(void *(*function)(void *), void *argument)
{
	pthread_attr_t attributes;
	pthread_t thread;

	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, 256 << 10);
	if (pthread_create(&thread, &attributes, function, argument))
		die("thread");
	pthread_attr_destroy(&attributes);
}

/* Programs */

struct watched {
	struct channel *channel;
	uint32_t when;
	int output, errors;
};

/* Pass on what came; false at the end. */
static bool pass_on(struct watched *watched, int fd, char kind)
{
	char chunk[32768];
	ssize_t got = read(fd, chunk, sizeof(chunk));

	if (got < 0 && errno == EINTR)
		return true;
	if (got <= 0)
		return false;
	say(watched->when, watched->channel->number, kind, chunk, (size_t)got);
	return true;
}

/* With the table locked. */
static void feed(struct channel *channel)
{
	struct bytes *waiting = &channel->waiting;
	ssize_t sent = write(channel->input, waiting->data, waiting->size);

	if (sent < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (sent < 0) {			/* it reads no more */
		waiting->size = 0;
		channel->ends = true;
		return;
	}
	waiting->size -= (size_t)sent;
	memmove(waiting->data, waiting->data + sent, waiting->size);
}

static void forget(struct channel *channel)
{
	struct channel **place;

	pthread_mutex_lock(&table);
	for (place = &channels; *place != channel; place = &(*place)->next)
		;
	*place = channel->next;
	if (channel->input >= 0)
		close(channel->input);
	pthread_mutex_unlock(&table);
	close(channel->wake);
	free(channel->waiting.data);
	free(channel);
}

static void *watch(void *argument)
{
	struct watched *watched = argument;
	struct channel *channel = watched->channel;
	uint32_t status_said;
	int status = 0;
	uint64_t woken;

	while (watched->output >= 0 || watched->errors >= 0) {
		struct pollfd fds[4] = {
			{ .fd = watched->output, .events = POLLIN },
			{ .fd = watched->errors, .events = POLLIN },
			{ .fd = channel->wake, .events = POLLIN },
			{ .fd = -1, .events = POLLOUT },
		};

		pthread_mutex_lock(&table);
		if (channel->input >= 0 && !channel->waiting.size && channel->ends) {
			close(channel->input);
			channel->input = -1;
		}
		if (channel->input >= 0 && channel->waiting.size)
			fds[3].fd = channel->input;
		pthread_mutex_unlock(&table);
		if (poll(fds, 4, -1) < 0 && errno != EINTR)
			die("poll");
		if (fds[2].revents && read(channel->wake, &woken, sizeof(woken)) < 0)
			die("read an event");
		if (fds[3].revents) {
			pthread_mutex_lock(&table);
			feed(channel);
			pthread_mutex_unlock(&table);
		}
		if (fds[0].revents && !pass_on(watched, watched->output, 'O')) {
			close(watched->output);
			watched->output = -1;
		}
		if (fds[1].revents && !pass_on(watched, watched->errors, 'R')) {
			close(watched->errors);
			watched->errors = -1;
		}
	}
	while (waitpid(channel->pid, &status, 0) < 0 && errno == EINTR)
		;
	status_said = htonl((uint32_t)status);
	say(watched->when, channel->number, 'S', &status_said, sizeof(status_said));
	forget(channel);
	free(watched);
	return NULL;
}

static void __attribute__((noreturn)) become(char **words, int input, int output, int errors,
					     int failed)
{
	sigset_t none;
	int error;

	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	dup2(input, STDIN_FILENO);
	dup2(output, STDOUT_FILENO);
	dup2(errors, STDERR_FILENO);
	execvp(words[0], words);
	error = errno;
	if (write(failed, &error, sizeof(error)) < 0)
		_exit(126);
	_exit(127);
}

static void start(uint32_t number, struct bytes *content)
{
	int input[2], output[2], errors[2], failed[2], error = 0;
	struct channel *channel = calloc(1, sizeof(*channel));
	struct watched *watched = calloc(1, sizeof(*watched));
	size_t count = 0, at = 0;
	char **words;

	for (size_t i = 0; i < content->size; i++)
		count += !content->data[i];
	words = calloc(count + 1, sizeof(*words));
	if (!words || !channel || !watched)
		die("memory");
	for (size_t i = 0; i < count; i++) {
		words[i] = content->data + at;
		at += strlen(words[i]) + 1;
	}
	if (!count || pipe2(input, O_CLOEXEC) || pipe2(output, O_CLOEXEC) ||
	    pipe2(errors, O_CLOEXEC) || pipe2(failed, O_CLOEXEC))
		die("pipes");
	channel->number = number;
	channel->input = input[1];
	channel->wake = eventfd(0, EFD_CLOEXEC);
	fcntl(input[1], F_SETFL, O_NONBLOCK);
	channel->pid = fork();
	if (channel->pid < 0)
		die("fork");
	if (!channel->pid)
		become(words, input[0], output[1], errors[1], failed[1]);
	close(input[0]);
	close(output[1]);
	close(errors[1]);
	close(failed[1]);
	free(words);
	/* The end of file means that it runs. */
	if (read(failed[0], &error, sizeof(error)) == sizeof(error)) {
		uint32_t said = htonl((uint32_t)error);

		say(age, number, 'F', &said, sizeof(said));
	}
	close(failed[0]);
	pthread_mutex_lock(&table);
	channel->next = channels;
	channels = channel;
	pthread_mutex_unlock(&table);
	*watched = (struct watched) { channel, age, output[0], errors[0] };
	in_thread(watch, watched);
}

static void tell(uint32_t number, char kind, const struct bytes *content)
{
	struct channel *channel;
	uint64_t one = 1;

	pthread_mutex_lock(&table);
	for (channel = channels; channel; channel = channel->next)
		if (channel->number == number && !channel->orphan)
			break;
	if (channel && kind == 'K')
		kill(-channel->pid, SIGKILL);
	if (channel && kind == 'I' && channel->input >= 0 && !channel->ends)
		add(&channel->waiting, content->data, content->size);
	if (channel && kind == 'E')
		channel->ends = true;
	if (channel && write(channel->wake, &one, sizeof(one)) < 0)
		die("wake a channel");
	pthread_mutex_unlock(&table);
}

static void begin_anew(uint32_t number, const struct bytes *content)
{
	uint64_t one = 1;

	pthread_mutex_lock(&sending);
	age++;
	pthread_mutex_unlock(&sending);
	pthread_mutex_lock(&table);
	for (struct channel *channel = channels; channel; channel = channel->next) {
		channel->orphan = channel->ends = true;
		channel->waiting.size = 0;
		kill(-channel->pid, SIGKILL);
		if (write(channel->wake, &one, sizeof(one)) < 0)
			die("wake a channel");
	}
	pthread_mutex_unlock(&table);
	say(age, number, 'H', content->data, content->size);
}

static void take(uint32_t number, char kind, struct bytes *content)
{
	struct batch *batch;

	switch (kind) {
	case 'H':
		begin_anew(number, content);
		break;
	case 'B':
		batch = calloc(1, sizeof(*batch));
		if (!batch)
			die("memory");
		*batch = (struct batch) { age, number, *content };
		*content = (struct bytes) { 0 };
		in_thread(work_on, batch);
		break;
	case 'X':
		start(number, content);
		break;
	default:
		tell(number, kind, content);
	}
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: trapline-agent DEVICE\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	if (strcmp(argv[1], "-")) {
		from_fd = to_fd = open(argv[1], O_RDWR | O_CLOEXEC);
		if (to_fd < 0)
			die(argv[1]);
	} else {
		from_fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
		to_fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	}
	if (!getenv("PATH"))
		setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
	for (;;) {
		struct bytes content = { 0 };
		char head[HEAD];
		uint32_t size;

		pull(head, HEAD);
		size = number_at(head);
		if (size > LARGEST) {
			errno = EBADMSG;
			die("a frame");
		}
		content.data = malloc(size + 1);
		if (!content.data)
			die("memory");
		content.size = content.room = size;
		pull(content.data, size);
		take(number_at(head + 4), head[8], &content);
		free(content.data);
	}
}
