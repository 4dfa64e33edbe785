"""A kernel or a QEMU saying that it is broken, recognised in one line of a console.

Patterns are tied to the start of the message (after time and thread are taken off), so a
kernel command line with ``panic=-1 oops=panic`` or a quoted text does not match.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass

from harness.parse.kernel_line import read_kernel_line


class CrashKind(enum.Enum):
    """What sort of trouble was announced; the value is the name used in reports."""

    PANIC = "kernel panic"
    NO_ROOT = "no root file system"
    OOM_PANIC = "out of memory panic"
    OOPS = "oops"
    PAGE_FAULT = "page fault oops"
    TRAP = "processor exception oops"
    BUG = "BUG"
    SOFT_LOCKUP = "soft lockup"
    HARD_LOCKUP = "hard lockup"
    WORKQUEUE_LOCKUP = "workqueue lockup"
    HUNG_TASK = "hung task"
    RCU_STALL = "RCU stall"
    OOM_KILL = "out of memory kill"
    WARNING = "warning"
    QEMU_ABORT = "QEMU abort"
    QEMU_ASSERTION = "QEMU assertion"
    QEMU_HARDWARE_ERROR = "QEMU hardware error"
    KVM_INTERNAL_ERROR = "KVM internal error"
    KVM_ENTRY_FAILED = "KVM entry failed"

    @property
    def severity(self) -> int:
        """0: something to note, 1: a stall that may pass (slow machines have them), 2: fatal."""
        if self in _NOTES:
            return 0
        return 1 if self in _STALLS else 2

    @property
    def fatal(self) -> bool:
        """Say whether nothing that comes later from this system can be trusted."""
        return self.severity == 2

    @property
    def stall(self) -> bool:
        """Say whether it is a watchdog that fired: the system may go on."""
        return self.severity == 1


_NOTES = frozenset({CrashKind.WARNING, CrashKind.OOM_KILL})
_STALLS = frozenset(
    {
        CrashKind.SOFT_LOCKUP,
        CrashKind.HARD_LOCKUP,
        CrashKind.WORKQUEUE_LOCKUP,
        CrashKind.HUNG_TASK,
        CrashKind.RCU_STALL,
    }
)


@dataclass(frozen=True, slots=True)
class Crash:
    """One announcement."""

    kind: CrashKind
    text: str
    """The message, without time stamp and thread."""
    source: str
    """Who prints such a line: file and function of the kernel or of QEMU."""
    time: float | None = None
    """Seconds since boot."""


@dataclass(frozen=True, slots=True)
class CrashReport:
    """A crash and the lines that came with it (registers, call trace)."""

    crash: Crash
    lines: tuple[str, ...]
    """The announcing line first, as fed, without line ends."""
    complete: bool = False
    """The end mark (``---[ end …``) or the limit of lines was reached."""


_PANIC = r"Kernel panic - not syncing"

# In order: the first that matches the start of the message decides.
_PATTERNS: tuple[tuple[CrashKind, str, str], ...] = (
    (
        CrashKind.NO_ROOT,
        rf"(?:{_PANIC}: )?VFS: (?:Unable to mount root fs|Cannot open root device)",
        "init/do_mounts.c:mount_root_generic",
    ),
    (
        CrashKind.OOM_PANIC,
        rf"{_PANIC}: (?:Out of memory|System is deadlocked on memory)",
        "mm/oom_kill.c:check_panic_on_oom, out_of_memory",
    ),
    (CrashKind.PANIC, _PANIC, "kernel/panic.c:vpanic"),
    (
        CrashKind.SOFT_LOCKUP,
        r"(?:(?:NMI )?watchdog: )?BUG: soft lockup - CPU#\d+ stuck for",
        "kernel/watchdog.c:watchdog_timer_fn",
    ),
    (
        CrashKind.HARD_LOCKUP,
        r"(?:(?:NMI )?watchdog: )?(?:CPU\d+: )?Watchdog detected hard LOCKUP",
        "kernel/watchdog.c:watchdog_hardlockup_check",
    ),
    (
        CrashKind.WORKQUEUE_LOCKUP,
        r"BUG: workqueue lockup - pool",
        "kernel/workqueue.c:wq_watchdog_timer_fn",
    ),
    (
        CrashKind.HUNG_TASK,
        r"INFO: task \S.*:\d+ blocked for more than \d+ seconds",
        "kernel/hung_task.c:check_hung_task",
    ),
    (
        CrashKind.RCU_STALL,
        r"(?:rcu: )?INFO: \S+ (?:self-detected stall on CPU"
        r"|detected (?:expedited )?stalls on CPUs/tasks)",
        "kernel/rcu/tree_stall.h:print_cpu_stall, print_other_cpu_stall",
    ),
    (
        CrashKind.RCU_STALL,
        r"(?:rcu: )?\S+ kthread starved for \d+ jiffies!",
        "kernel/rcu/tree_stall.h:rcu_check_gp_kthread_starvation",
    ),
    (
        CrashKind.PAGE_FAULT,
        r"BUG: (?:unable to handle |kernel NULL pointer dereference)",
        "arch/x86/mm/fault.c:show_fault_oops",
    ),
    (
        CrashKind.PAGE_FAULT,
        r"Unable to handle kernel (?:NULL pointer|paging request|access|pointer|execut)",
        "arch/arm64/mm/fault.c:die_kernel_fault, arch/s390/mm/fault.c:do_no_context",
    ),
    (
        CrashKind.TRAP,
        r"(?:Oops: )?(?:general protection fault|stack segment|segment not present|invalid opcode"
        r"|invalid TSS|divide error|double fault|int3|alignment check|control protection fault)"
        r"[^\[]*: [0-9a-f]{4} \[#\d+\]",
        "arch/x86/kernel/dumpstack.c:__die_header, arch/x86/kernel/traps.c",
    ),
    (
        CrashKind.OOPS,
        r"(?:Internal error: )?(?:Oops(?: - [\w ]+)?: )+.*\[#\d+\]",
        "arch/x86/kernel/dumpstack.c:__die_header, arch/arm64/kernel/traps.c:__die",
    ),
    (
        CrashKind.OOPS,
        r"Internal error: .*\[#\d+\]",
        "arch/arm64/kernel/traps.c:__die",
    ),
    (
        CrashKind.OOPS,
        r"Oops: [0-9a-f]{4} ilc:\d",
        "arch/s390/kernel/dumpstack.c:die",
    ),
    (CrashKind.BUG, r"kernel BUG at \S+:\d+!", "lib/bug.c:report_bug"),
    (
        CrashKind.BUG,
        r"BUG: \S",
        "kernel/sched/core.c:__schedule_bug, mm/page_alloc.c:bad_page, mm/kasan/report.c",
    ),
    (
        CrashKind.OOM_KILL,
        r"(?:Out of memory|Memory cgroup out of memory): Kill(?:ed)? process \d+",
        "mm/oom_kill.c:__oom_kill_process",
    ),
    (
        CrashKind.WARNING,
        # Old kernels print the CPU first, new ones the place.
        r"WARNING: (?:CPU: \d+ PID: \d+ at|\S+:\d+ at \S|possible |suspicious |inconsistent )",
        "kernel/panic.c:__warn, kernel/locking/lockdep.c",
    ),
    (CrashKind.QEMU_HARDWARE_ERROR, r"qemu: hardware error:", "QEMU system/cpus.c:hw_error"),
    (CrashKind.QEMU_ABORT, r"qemu: fatal:", "QEMU cpu-target.c:cpu_abort"),
    (
        CrashKind.QEMU_ABORT,
        r"(?:qemu\S*: )?Unexpected error in \S+\(\) at \S+:\d+:",
        "QEMU util/error.c:error_handle",
    ),
    (
        CrashKind.QEMU_ASSERTION,
        r"qemu\S*: \S+:\d+: .*Assertion [`'].*' failed",
        "C library assert()",
    ),
    (
        CrashKind.QEMU_ASSERTION,
        r"(?:Bail out! )?ERROR:\S+:\d+:\S+: "
        r"(?:assertion failed|code should not be reached|.*should not be reached)",
        "GLib g_assertion_message()",
    ),
    (
        CrashKind.KVM_INTERNAL_ERROR,
        r"KVM internal error\. Suberror: \d+",
        "QEMU accel/kvm/kvm-all.c:kvm_handle_internal_error",
    ),
    (
        CrashKind.KVM_ENTRY_FAILED,
        r"KVM: entry failed, hardware error 0x",
        "QEMU target/i386/kvm/kvm.c:kvm_arch_handle_exit",
    ),
    (
        CrashKind.KVM_INTERNAL_ERROR,
        r"(?:KVM: unknown exit reason|error: kvm run failed)",
        "QEMU accel/kvm/kvm-all.c:kvm_cpu_exec",
    ),
)
_COMPILED = tuple((kind, re.compile(text), source) for kind, text, source in _PATTERNS)
_LATE_PANIC = re.compile(rf"(?<!['\"=]){_PANIC}: ")
_TYPED = re.compile(r"\b(?:echo|grep|printf|awk|sed|cat)\b|[Cc]ommand line:")
_END = re.compile(r"---\[ end ")


def find_crash(line: str) -> Crash | None:
    """Return what *line* announces, or None. One line, with or without time stamp and CR.

    A panic is also seen behind other text (a prompt without a line end), unless a shell
    command is in front of it.
    """
    message = read_kernel_line(line)
    text = message.text
    if _END.search(text):
        return None
    for kind, pattern, source in _COMPILED:
        if pattern.match(text):
            return Crash(kind, text, source, message.time)
    late = _LATE_PANIC.search(text)
    if late is not None and not _TYPED.search(text[: late.start()]):
        return find_crash(text[late.start() :])
    return None


def kvm_suberror(said: str) -> int | None:
    """Return the last ``KVM internal error. Suberror`` in what a QEMU *said*; None without one."""
    found = re.findall(r"KVM internal error\. Suberror: (\d+)", said)
    return int(found[-1]) if found else None


class CrashCollector:
    """Finds crashes in a stream of lines and keeps the lines around each.

    A crash is told at its first line: nothing waits for a trace that may never end. What
    follows is gathered in `reports` until the end mark or *limit* lines.
    """

    def __init__(self, *, limit: int = 60) -> None:
        self._limit = limit
        self._reports: list[CrashReport] = []
        self._crash: Crash | None = None
        self._lines: list[str] = []

    def feed(self, line: str) -> Crash | None:
        """Take the next line; return the crash that begins with it, if one does.

        Lines inside a report announce nothing new unless they are worse than what the report
        is about: the ``Oops:`` line below ``BUG: kernel NULL pointer`` belongs to it, a panic
        after a warning does not.
        """
        found = find_crash(line)
        if self._crash is not None:
            if found is not None and found.kind.severity > self._crash.kind.severity:
                self._close()
            else:
                self._gather(line)
                return None
        if found is not None:
            self._crash, self._lines = found, []
            self._gather(line)
        return found

    def _gather(self, line: str) -> None:
        self._lines.append(line.rstrip("\r\n"))
        if _END.search(line) or len(self._lines) >= self._limit:
            self._close()

    def _close(self) -> None:
        if self._crash is not None:
            self._reports.append(CrashReport(self._crash, tuple(self._lines), complete=True))
        self._crash, self._lines = None, []

    @property
    def reports(self) -> tuple[CrashReport, ...]:
        """All reports, oldest first; the last may still grow (``complete`` is False then)."""
        if self._crash is None:
            return tuple(self._reports)
        return (*self._reports, CrashReport(self._crash, tuple(self._lines)))


def find_crashes(lines: Iterable[str]) -> tuple[CrashReport, ...]:
    """Return every crash report in *lines*."""
    collector = CrashCollector()
    for line in lines:
        collector.feed(line)
    return collector.reports
