// SPDX-License-Identifier: GPL-2.0-or-later
/* Is KVM usable? Only running 64-bit code within a time limit tells; the file does not. */
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "probe.h"

#define GRACE_MS	1000	/* for the guest's own process to notice the deadline */

static int run(int argc, char **argv)
{
	u64 deadline_ms = 5000, count = 0, end;
	bool counted = false;
	char *op_name = NULL;
	enum kvm_op op = KVM_OP_NONE;
	const struct opt opts[] = {
		{ "deadline", OPT_SECONDS, &deadline_ms, NULL },
		{ "count", OPT_NUMBER, &count, &counted },
		{ "op", OPT_TEXT, &op_name, NULL },
	};
	struct pollfd fds;
	int ends[2], status;
	char waste;
	pid_t pid;

	parse_words(argc, argv, opts, ARRAY_SIZE(opts), NULL, 0, 0);
	if (counted != !!op_name || (counted && !count))
		misuse("--count N (1 or more) and --op mov|cpuid go together");
	if (op_name && !strcmp(op_name, "mov"))
		op = KVM_OP_MOV;
	else if (op_name && !strcmp(op_name, "cpuid"))
		op = KVM_OP_CPUID;
	else if (op_name)
		misuse("--op mov or --op cpuid, not '%s'", op_name);

	end = now_ms() + deadline_ms;
	if (pipe(ends))
		die("pipe");
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(ends[0]);
		kvm_guest_run(op, count, end);
	}
	/* The pipe closes when the child is gone; a child stuck in the kernel keeps it. */
	close(ends[1]);
	fds = (struct pollfd) { .fd = ends[0], .events = POLLIN };
	if (poll(&fds, 1, (int)(deadline_ms + GRACE_MS)) > 0 && !read(ends[0], &waste, 1)) {
		waitpid(pid, &status, 0);
		if (WIFEXITED(status))
			return WEXITSTATUS(status);
		printf("kvm=no reason=signal-%d\n", WTERMSIG(status));
		return FAILED;
	}
	/* Not reaped: what does not die of SIGKILL cannot be waited for. */
	kill(pid, SIGKILL);
	puts("kvm=no reason=stuck");
	return LATE;
}

const struct command kvm_command = {
	.name = "kvm",
	.summary = "does KVM run 64-bit code? how many exits does an instruction cost?",
	.help =
	"  probe kvm [--deadline SECONDS]\n"
	"  probe kvm --op mov|cpuid --count N [--deadline SECONDS]\n"
	"\n"
	"Runs mov $7,%rax and hlt in long mode on a vCPU of its own, or N times the instruction\n"
	"and then these two. exits is the vCPU's statistic: hlt is one of them, interrupts of\n"
	"the host may be others. --deadline: 5 seconds.\n"
	"  kvm=ok rax=7 [op=mov count=N] exits=N|unknown hardware=yes|no|unknown    status 0\n"
	"      hardware=no: cpuid costs no exit of its own, so the code is interpreted (kvm_pvm);\n"
	"      do not boot a system on it, and do not believe its exit counts\n"
	"  kvm=no reason=STEP [error=ENAME]                    status 1\n"
	"      a step (open, create-vm, …), exit-N (of linux/kvm.h), rax or signal-N\n"
	"  kvm=no reason=deadline|stuck                        status 3; rip=0x… before, if known\n",
	.run = run,
};
