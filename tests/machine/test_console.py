"""The console: lines of all kinds, waits, and crashes as the kernel prints them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import GuestCrashed, MachineDied, WaitTimeout
from harness.machine.console import Console


class Line:
    """A console and the far end of its line."""

    def __init__(self, log: Path) -> None:
        ours, self.far = socket.socketpair()
        self.console = Console(ours, name="box", level="L2", log=log)

    def say(self, text: str | bytes) -> None:
        self.far.sendall(text if isinstance(text, bytes) else text.encode())

    def end(self) -> None:
        self.far.close()
        assert self.console.wait_closed(timeout=5)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path / "console.log")
    yield made
    made.far.close()
    made.console.close()


def test_lines_end_with_or_without_carriage_return(line: Line) -> None:
    line.say("one\r\ntwo\nthree\r\r\n")
    line.end()

    assert line.console.lines == ["one", "two", "three"]


def test_colours_and_cursor_moves_are_taken_off(line: Line, tmp_path: Path) -> None:
    line.say("\x1bc\x1b[?7l\x1b[2J\x1b[0;32mready\x1b[0m\r\n")
    line.end()

    assert line.console.lines == ["ready"]
    assert (tmp_path / "console.log").read_text() == "ready\n"


def test_bytes_that_are_no_text_do_not_end_the_reading(line: Line) -> None:
    line.say(b"\xff\xfe\r\nafter\r\n")
    line.end()

    assert line.console.lines[-1] == "after"


def test_a_line_without_end_is_kept_when_the_console_closes(line: Line, tmp_path: Path) -> None:
    line.say("one\nKernel panic - not syncing: last wo")
    line.end()

    assert line.console.lines[-1] == "Kernel panic - not syncing: last wo"
    with pytest.raises(GuestCrashed, match="last wo"):
        line.console.check()


def test_a_line_without_end_is_seen_in_the_tail(line: Line) -> None:
    line.say("one\nBooting from ROM..")

    with pytest.raises(WaitTimeout, match=r"one(.|\n)*Booting from ROM\.\."):
        line.console.wait_for("login", timeout=0.2)


def test_a_huge_line_comes_through(line: Line) -> None:
    huge = "x" * 1_000_000
    line.say(f"{huge}\nafter\n")

    assert line.console.wait_for("^after$", timeout=20)
    assert line.console.lines[0] == huge


def test_a_line_that_was_said_before_the_wait_counts(line: Line) -> None:
    line.say("trapline: ready 3.5\n")
    line.console.wait_for("ready", timeout=5)

    assert line.console.wait_for(r"ready (\S+)", timeout=0)[1] == "3.5"


def test_a_console_that_closes_ends_the_wait(line: Line) -> None:
    line.say("one\n")
    line.far.close()

    with pytest.raises(WaitTimeout, match="the console closed first"):
        line.console.wait_for("login", timeout=30)


def test_a_guard_ends_the_wait_with_its_own_cause(line: Line) -> None:
    def dead() -> None:
        raise MachineDied("gone")

    with pytest.raises(MachineDied):
        line.console.wait_for("login", timeout=30, guards=(dead,))


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Kernel panic - not syncing: sysrq triggered crash", "kernel panic"),
        ("VFS: Unable to mount root fs on unknown-block(0,0)", "no root file system"),
        ("BUG: kernel NULL pointer dereference, address: 0000000000000000", "page fault oops"),
        ("Oops: 0002 [#1] PREEMPT SMP NOPTI", "oops"),
        ("kernel BUG at mm/slub.c:300!", "BUG"),
        ("watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [kworker:12]", "soft lockup"),
        ("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", "RCU stall"),
        ("INFO: task kworker/0:1:12 blocked for more than 120 seconds.", "hung task"),
    ],
)
def test_a_crash_ends_every_wait_at_once(line: Line, said: str, kind: str) -> None:
    line.say(f"[    4.100000] before\r\n[    4.200000] {said}\r\n[    4.3] CPU: 0 PID: 1\r\n")

    with pytest.raises(GuestCrashed, match=r"^L2 kernel of box: ") as caught:
        line.console.wait_for("login", timeout=30)

    assert (caught.value.level, caught.value.kind) == ("L2", kind)
    assert caught.value.seen.splitlines()[0] == f"[    4.200000] {said}"


def test_a_crash_is_told_with_its_lines_however_many_come_after(line: Line) -> None:
    line.say("[ 1.0] Kernel panic - not syncing: first\n" + "later\n" * 500)
    line.end()

    with pytest.raises(GuestCrashed, match="panic - not syncing: first"):
        line.console.check()


def test_the_first_crash_is_the_cause(line: Line) -> None:
    line.say("[    1.000000] kernel BUG at mm/slub.c:300!\n---[ end trace 0 ]---\n"
             "[    1.100000] Kernel panic - not syncing: Fatal exception\n")  # fmt: skip
    line.end()

    with pytest.raises(GuestCrashed) as caught:
        line.console.check()
    assert caught.value.kind == "BUG"


@pytest.mark.parametrize(
    "said",
    [
        "Command line: console=ttyS0 panic=-1 oops=panic",
        "WARNING: CPU: 0 PID: 1 at drivers/iommu/iommu.c:1 x+0x1/0x2",
        "Out of memory: Killed process 12 (dd)",
    ],
)
def test_what_is_no_crash_does_not_end_a_wait(line: Line, said: str) -> None:
    line.say(f"[    0.100000] {said}\nlogin\n")

    assert line.console.wait_for("^login$", timeout=5)
    line.console.check()


def test_a_log_on_a_full_disk_does_not_make_us_deaf(caplog: pytest.LogCaptureFixture) -> None:
    line = Line(Path("/dev/full"))
    line.say("one\nKernel panic - not syncing: x\n")
    line.end()

    assert line.console.lines[0] == "one"
    with pytest.raises(GuestCrashed):
        line.console.check()
    assert "is not complete" in caplog.text
    line.console.close()


def test_a_console_may_be_closed_twice(line: Line) -> None:
    line.console.close()
    line.console.close()

    assert line.console.closed
