"""Crashes are seen in the line that announces them, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.parse.crash import CrashCollector, CrashKind, find_crash, find_crashes

K = CrashKind

ANNOUNCEMENTS = [
    ("Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100", K.PANIC),
    ("Kernel panic - not syncing: Fatal exception", K.PANIC),
    ("Kernel panic - not syncing: Hard LOCKUP", K.PANIC),
    (
        "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
        K.NO_ROOT,
    ),
    ('VFS: Cannot open root device "vda1" or unknown-block(0,0): error -6', K.NO_ROOT),
    (
        "Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled",
        K.OOM_PANIC,
    ),
    ("Kernel panic - not syncing: System is deadlocked on memory", K.OOM_PANIC),
    ("Oops: 0002 [#1] PREEMPT SMP NOPTI", K.OOPS),
    ("Oops: Oops: 0000 [#1] SMP NOPTI", K.OOPS),
    ("Internal error: Oops: 0000000096000004 [#1] SMP", K.OOPS),
    ("Internal error: synchronous external abort: 96000410 [#1] SMP", K.OOPS),
    ("Oops: 0004 ilc:2 [#1] SMP", K.OOPS),
    ("BUG: kernel NULL pointer dereference, address: 0000000000000000", K.PAGE_FAULT),
    ("BUG: unable to handle page fault for address: ffffb5a0c0000000", K.PAGE_FAULT),
    ("BUG: unable to handle kernel paging request at ffffb5a0c0000000", K.PAGE_FAULT),
    (
        "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000008",
        K.PAGE_FAULT,
    ),
    ("general protection fault: 0000 [#1] SMP", K.TRAP),
    (
        "general protection fault, probably for non-canonical address 0xdead000000000108:"
        " 0000 [#1] PREEMPT SMP",
        K.TRAP,
    ),
    (
        "Oops: general protection fault, probably for non-canonical address"
        " 0xdead000000000108: 0000 [#1] SMP",
        K.TRAP,
    ),
    ("divide error: 0000 [#3] PREEMPT SMP", K.TRAP),
    ("kernel BUG at mm/slub.c:305!", K.BUG),
    ("BUG: scheduling while atomic: swapper/0/1/0x00000002", K.BUG),
    ("BUG: KASAN: slab-out-of-bounds in foo+0x1/0x2", K.BUG),
    ("watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [swapper/1:0]", K.SOFT_LOCKUP),
    ("NMI watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [init:1]", K.SOFT_LOCKUP),
    ("watchdog: Watchdog detected hard LOCKUP on cpu 0", K.HARD_LOCKUP),
    ("watchdog: CPU3: Watchdog detected hard LOCKUP on cpu 3", K.HARD_LOCKUP),
    ("NMI watchdog: Watchdog detected hard LOCKUP on cpu 1", K.HARD_LOCKUP),
    (
        "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!",
        K.WORKQUEUE_LOCKUP,
    ),
    ("INFO: task kworker/u4:1:12 blocked for more than 120 seconds.", K.HUNG_TASK),
    ("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", K.RCU_STALL),
    ("rcu: INFO: rcu_sched self-detected stall on CPU", K.RCU_STALL),
    ("INFO: rcu_sched self-detected stall on CPU", K.RCU_STALL),
    (
        "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 0-...D } 21 jiffies",
        K.RCU_STALL,
    ),
    ("rcu: rcu_preempt kthread starved for 5250 jiffies! g-1163 f0x0", K.RCU_STALL),
    ("Out of memory: Killed process 412 (dd) total-vm:1kB", K.OOM_KILL),
    ("WARNING: CPU: 0 PID: 1 at kernel/irq/chip.c:210 irq_startup+0xd1/0xe0", K.WARNING),
    ("WARNING: kernel/irq/chip.c:210 at irq_startup+0xd1/0xe0, CPU#0: swapper/0/1", K.WARNING),
    ("WARNING: possible circular locking dependency detected", K.WARNING),
    ("qemu: hardware error: vfio: DMA mapping failed, unable to continue", K.QEMU_HARDWARE_ERROR),
    ("qemu: fatal: Trying to execute code outside RAM or ROM at 0x0", K.QEMU_ABORT),
    ("Unexpected error in vfio_realize() at ../hw/vfio/pci.c:3050:", K.QEMU_ABORT),
    (
        "qemu-system-x86_64: ../hw/pci/pci.c:321: pci_bus_range: Assertion `bus' failed.",
        K.QEMU_ASSERTION,
    ),
    (
        "ERROR:../system/cpus.c:504:qemu_mutex_unlock: assertion failed: (locked)",
        K.QEMU_ASSERTION,
    ),
    (
        "Bail out! ERROR:../accel/tcg/cputlb.c:9:f: code should not be reached",
        K.QEMU_ASSERTION,
    ),
    ("KVM internal error. Suberror: 1", K.KVM_INTERNAL_ERROR),
    ("KVM: entry failed, hardware error 0x80000021", K.KVM_ENTRY_FAILED),
    ("error: kvm run failed Bad address", K.KVM_INTERNAL_ERROR),
]

INNOCENT = [
    "",
    "Command line: BOOT_IMAGE=/vmlinuz panic=-1 oops=panic softlockup_panic=1",
    "Kernel command line: console=ttyS0 panic=-1 oops=panic nmi_watchdog=panic",
    'root@l1:~# echo "Kernel panic - not syncing: not really"',
    "root@l1:~# echo Kernel panic - not syncing: not really",
    "root@l1:~# dmesg | grep 'Kernel panic - not syncing: '",
    "---[ end Kernel panic - not syncing: Fatal exception ]---",
    "---[ end trace 0000000000000000 ]---",
    "NMI watchdog: Perf NMI watchdog permanently disabled",
    "NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.",
    "rcu: Hierarchical RCU implementation.",
    "rcu: \tRCU event tracing is enabled.",
    "rcu: INFO: something else",
    "[Firmware Bug]: TSC_DEADLINE disabled due to Errata",
    "traps: foo[123] general protection fault ip:55 sp:7f error:0 in foo[55+1000]",
    "x86/fpu: Supporting XSAVE feature 0x001",
    "WARNING! Your password expires",
    "qemu-system-x86_64: warning: KVM internal error: Encountered a notify exit",
    "qemu-system-x86_64: terminating on signal 15 from pid 1 (init)",
    "Spectre V2 : Oops",
]


@pytest.mark.parametrize(("text", "kind"), ANNOUNCEMENTS)
@pytest.mark.parametrize("prefix", ["", "[   12.345678] ", "<2>[   12.345678][    T1] "])
@pytest.mark.parametrize("end", ["", "\r", "\r\n"])
def test_announcement_is_recognised(text: str, kind: CrashKind, prefix: str, end: str) -> None:
    crash = find_crash(prefix + text + end)

    assert crash is not None
    assert (crash.kind, crash.text) == (kind, text)
    assert crash.time == (12.345678 if prefix else None)
    assert crash.source


@pytest.mark.parametrize("text", INNOCENT)
@pytest.mark.parametrize("prefix", ["", "[    0.000000] "])
def test_innocent_line_is_no_crash(text: str, prefix: str) -> None:
    assert find_crash(prefix + text) is None


def test_every_kind_has_a_sample() -> None:
    assert {kind for _, kind in ANNOUNCEMENTS} == set(CrashKind)


def test_panic_behind_a_prompt_without_line_end_is_seen() -> None:
    crash = find_crash("guest login: Kernel panic - not syncing: Fatal exception in interrupt")

    assert crash is not None
    assert crash.kind is CrashKind.PANIC


def test_stalls_and_warnings_are_not_fatal() -> None:
    assert not CrashKind.WARNING.fatal
    assert CrashKind.RCU_STALL.stall
    assert not CrashKind.RCU_STALL.fatal
    assert CrashKind.PANIC.fatal


OOPS_AND_PANIC = """\
[    5.0] noise before
[    5.000001] BUG: kernel NULL pointer dereference, address: 0000000000000000
[    5.000002] #PF: supervisor write access in kernel mode
[    5.000003] Oops: Oops: 0002 [#1] SMP NOPTI
[    5.000004] Call Trace:
[    5.000005]  <TASK>
[    5.000006] ---[ end trace 0000000000000000 ]---
[    5.000007] RIP: 0010:foo+0x1/0x10
[    5.000008] Kernel panic - not syncing: Fatal exception
[    5.000009] Kernel Offset: disabled
[    5.000010] ---[ end Kernel panic - not syncing: Fatal exception ]---
[    5.000011] noise after
""".splitlines()


def test_reports_end_at_their_end_marks() -> None:
    oops, panic = find_crashes(OOPS_AND_PANIC)

    assert oops.crash.kind is CrashKind.PAGE_FAULT
    assert (len(oops.lines), oops.complete) == (6, True)
    assert panic.crash.kind is CrashKind.PANIC
    assert (len(panic.lines), panic.complete) == (3, True)


def test_crash_is_told_at_its_first_line() -> None:
    collector = CrashCollector()

    told = [collector.feed(line) for line in OOPS_AND_PANIC[:4]]

    assert [crash.kind if crash else None for crash in told] == [None, K.PAGE_FAULT, None, None]
    assert [report.complete for report in collector.reports] == [False]


def test_worse_crash_ends_a_report() -> None:
    collector = CrashCollector()
    collector.feed("WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2")

    crash = collector.feed("Kernel panic - not syncing: x")

    assert crash is not None
    assert [r.crash.kind for r in collector.reports] == [K.WARNING, K.PANIC]


def test_report_stops_at_the_limit() -> None:
    collector = CrashCollector(limit=5)
    for line in ["kernel BUG at a.c:1!", *["  frame"] * 20]:
        collector.feed(line)

    assert [(len(r.lines), r.complete) for r in collector.reports] == [(5, True)]


@given(st.text())
def test_any_text_can_be_fed(text: str) -> None:
    CrashCollector().feed(text)
