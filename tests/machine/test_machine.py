"""The life of a machine, and every way in which it can go wrong, with a fake QEMU."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from qemu.qmp import QMPClient  # noqa: F401  # loaded before descriptors are counted

from harness.errors import (
    GuestCrashed,
    HarnessError,
    LaunchFailed,
    MachineDied,
    MachineError,
    QmpFailed,
    WaitTimeout,
)
from harness.machine.command import Device
from harness.machine.exit_status import describe_exit
from harness.machine.machine import Machine
from harness.machine.place import LocalPlace, LocalProcess
from harness.machine.qmp import Qmp

Start = Callable[..., Machine]


@pytest.mark.usefixtures("nothing_left")
def test_a_machine_starts_answers_and_leaves_nothing_but_evidence(
    start: Start, evidence: Path
) -> None:
    machine = start()
    answer = machine.qmp.execute("query-status")
    machine.kill()

    assert answer == {"asked": "query-status"}
    assert {path.name for path in evidence.iterdir()} == {
        "qemu.cmd", "qemu.log", "qmp.jsonl", "console.log",
    }  # fmt: skip
    assert "fake_qemu.py" in (evidence / "qemu.cmd").read_text()


def test_a_machine_may_be_killed_twice_and_says_that_it_has_ended(start: Start) -> None:
    machine = start()

    assert machine.kill() == -signal.SIGKILL
    assert machine.kill() == -signal.SIGKILL
    with pytest.raises(MachineDied, match="already ended"):
        machine.qmp.execute("query-status")
    with pytest.raises(MachineDied, match="already ended"):
        machine.console.tail()


def test_a_machine_that_quits_has_its_own_exit_status(start: Start) -> None:
    assert start().quit() == 0


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("how", "said", "status"),
    [
        ("refuse", "exited with 1 before QMP answered(.|\n)*'nonsense' is not a valid device", 1),
        ("die", r"was ended by signal 6 \(SIGABRT\) before(.|\n)*assertion failed", -6),
        ("hang-up", "exited with 3 before QMP answered", 3),
        ("late", "exited with 4 before QMP answered(.|\n)*out of memory", 4),
        ("mute", "QMP socket: did not happen within(.|\n)*I say nothing", None),
        ("no-console", "fake", None),
    ],
)
def test_a_qemu_that_does_not_come_up_is_a_failed_launch_with_its_words(
    start: Start, how: str, said: str, status: int | None, evidence: Path
) -> None:
    with pytest.raises(LaunchFailed, match=said) as caught:
        start(how, timeout=1)

    assert caught.value.exit_status == status
    assert (evidence / "qemu.cmd").exists()
    assert (evidence / "qemu.log").exists()


@pytest.mark.usefixtures("nothing_left")
def test_a_qemu_that_answers_garbage_is_told_from_one_that_dies(start: Start) -> None:
    with pytest.raises(QmpFailed, match="QMP did not start"):
        start("garbage")


@pytest.mark.usefixtures("nothing_left")
def test_a_qemu_that_never_greets_ends_at_the_deadline(start: Start) -> None:
    with pytest.raises(QmpFailed, match=r"no QMP greeting within 0.5 s"):
        start("deaf", timeout=0.5)


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.touch(), "Permission denied"),
        (lambda path: (path.write_bytes(b"\x7fELF junk"), path.chmod(0o755)), "Exec format error"),
        (lambda path: path.mkdir(), "Permission denied"),
    ],
    ids=["missing", "not executable", "no program", "directory"],
)
def test_a_program_that_cannot_be_executed_is_a_failed_launch(
    start: Start, tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    path = tmp_path / "qemu"
    make(path)

    with pytest.raises(LaunchFailed, match=rf"could not be started(.|\n)*{said}") as caught:
        start(argv=[os.fspath(path)])

    assert caught.value.exit_status is None


def test_a_program_that_is_no_qemu_is_a_failed_launch_with_its_words(start: Start) -> None:
    with pytest.raises(LaunchFailed, match=r"unrecognized option(.|\n)*--help"):
        start(argv=["/bin/cat", "--nonsense"])


@pytest.mark.parametrize("stage", ["_keep", "_start"])
@pytest.mark.usefixtures("nothing_left")
def test_a_launch_that_breaks_on_our_side_leaves_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    real = getattr(Machine, stage)

    def broken(*arguments: object, **more: object) -> None:
        real(*arguments, **more)
        raise OSError("no space left on device")

    monkeypatch.setattr(Machine, stage, broken)

    with pytest.raises(OSError, match="no space left"):
        start()


@pytest.mark.usefixtures("nothing_left")
def test_a_console_that_cannot_be_logged_leaves_nothing(start: Start, evidence: Path) -> None:
    (evidence / "console.log").mkdir()

    with pytest.raises(IsADirectoryError):
        start()


def test_a_machine_that_is_killed_says_so_at_the_next_command(start: Start) -> None:
    machine = start()
    os.kill(_pid(machine), signal.SIGKILL)

    with pytest.raises(MachineDied, match=r"ended by signal 9 \(SIGKILL\)(.|\n)*said nothing"):
        machine.qmp.execute("query-status")


def test_a_machine_that_is_killed_ends_waits_for_events_and_lines(start: Start) -> None:
    machine = start()
    os.kill(_pid(machine), signal.SIGKILL)

    with pytest.raises(MachineDied, match="SIGKILL"):
        machine.qmp.wait_event("RESET", timeout=30)
    with pytest.raises(MachineDied, match="SIGKILL"):
        machine.console.wait_for("login", timeout=30, guards=(machine.check,))


def test_a_stopped_machine_misses_the_deadline_and_can_be_killed(start: Start) -> None:
    machine = start()
    os.kill(_pid(machine), signal.SIGSTOP)

    with pytest.raises(QmpFailed, match=r"no answer to query-status within 0.5 s"):
        machine.qmp.execute("query-status", timeout=0.5)
    machine.check()
    assert machine.kill() == -signal.SIGKILL


def test_a_machine_that_goes_on_after_a_missed_deadline_answers_again(start: Start) -> None:
    machine = start()
    pid = _pid(machine)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(QmpFailed):
        machine.qmp.execute("query-status", timeout=0.3)
    os.kill(pid, signal.SIGCONT)

    assert machine.qmp.execute("query-pci") == {"asked": "query-pci"}


def test_a_panic_that_ends_qemu_is_reported_as_the_panic(start: Start) -> None:
    machine = start("panic")

    with pytest.raises(GuestCrashed, match=r"kernel panic(.|\n)*sysrq triggered") as caught:
        machine.qmp.execute("cont", timeout=30)
    assert (caught.value.level, caught.value.kind) == ("L1", "kernel panic")


def test_a_dead_place_is_the_first_cause(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = start()
    os.kill(_pid(machine), signal.SIGKILL)

    def broken(_: LocalPlace) -> None:
        raise GuestCrashed("L0 panicked", level="L0", kind="kernel panic", seen="", evidence=None)

    monkeypatch.setattr(LocalPlace, "check", broken)

    with pytest.raises(GuestCrashed, match="L0 panicked"):
        machine.check()
    with pytest.raises(GuestCrashed, match="L0 panicked"):
        machine.qmp.execute("query-status")


def test_evidence_that_cannot_be_collected_is_told_and_ends_nothing_else(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine = start()
    pid = _pid(machine)

    def broken(_: LocalProcess) -> dict[str, bytes]:
        raise HarnessError("the host is gone")

    monkeypatch.setattr(LocalProcess, "left", broken)
    machine.kill()

    assert "could not collect what it left: the host is gone" in caplog.text
    assert not Path(f"/proc/{pid}").exists()


def test_a_full_disk_while_collecting_is_told_and_ends_nothing_else(
    start: Start, evidence: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (evidence / "qemu.log").symlink_to("/dev/full")
    machine = start()
    Path(machine.sockets.stderr).write_text("some words")

    machine.kill()

    assert "could not collect qemu.log: OSError(28" in caplog.text


def test_a_machine_answers_a_second_monitor_while_the_first_is_busy(
    start: Start, tmp_path: Path
) -> None:
    machine = start()
    debug = Qmp("debug", tmp_path / "debug.jsonl")
    debug.connect(machine.place.connect(machine.sockets.qmp_debug, timeout=5))

    assert debug.execute("query-name") == {"asked": "query-name"}
    debug.close()


def test_what_qemu_said_can_be_read_after_its_end(start: Start) -> None:
    machine = start()
    Path(machine.sockets.stderr).write_text("last words")
    machine.kill()

    assert machine.stderr() == "last words"


def test_a_refusal_leaves_no_error_of_the_library_in_the_log(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(LaunchFailed):
        start("hang-up")

    assert [record for record in caplog.records if record.name.startswith("qemu")] == []


def test_a_refusal_can_be_debugged_with_the_words_of_the_library(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(LaunchFailed):
        start("hang-up")

    found = [
        r for r in caplog.records if "Failed to establish session: EOFError" in r.getMessage()
    ]
    assert found[0].levelname == "DEBUG"


def test_a_device_that_is_not_there_is_an_error_of_the_machine(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = start()
    monkeypatch.setattr(Machine, "functions", lambda _: ())

    with pytest.raises(MachineError, match="no PCI device 'nvme'"):
        machine.bar_addresses("nvme")


def test_a_device_that_never_goes_is_a_missed_deadline(start: Start) -> None:
    machine = start()

    with pytest.raises(WaitTimeout, match="no event DEVICE_DELETED"):
        machine.remove_device("nvme", timeout=0.2)


def test_a_device_is_added_with_all_its_properties(start: Start, evidence: Path) -> None:
    start().add_device(Device("edu", "edu", "pcie.0", "5", {"dma_mask": "0xff"}))

    assert '"driver": "edu", "id": "edu", "bus": "pcie.0"' in (evidence / "qmp.jsonl").read_text()


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exited with 0"), (-6, "was ended by signal 6 (SIGABRT)"), (-99, "by signal 99")],
)
def test_an_exit_status_is_said_in_words(status: int, words: str) -> None:
    assert words in describe_exit(status)


def test_a_socket_that_nobody_serves_is_closed_at_once(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(tmp_path / "s"))

    with pytest.raises(ConnectionRefusedError):
        LocalPlace().connect(os.fspath(tmp_path / "s"), timeout=1)


def _pid(machine: Machine) -> int:
    return int(machine.qmp.execute("pid")["asked"])


def commands(evidence: Path) -> list[str]:
    """Return the commands that were given, without those of the start."""
    said = [json.loads(line) for line in (evidence / "qmp.jsonl").read_text().splitlines()]
    names = [entry["message"].get("execute") for entry in said if entry["way"] == ">"]
    return [name for name in names if name in ("stop", "cont")]


def test_a_machine_stands_still_until_somebody_wants_it(start: Start, evidence: Path) -> None:
    machine = start("runs")

    machine.stand_still()
    machine.stand_still()
    assert commands(evidence) == ["stop"]

    machine.check()
    assert commands(evidence) == ["stop", "cont"]

    machine.stand_still()
    machine.qmp.execute("query-status")
    machine.go_on()
    assert commands(evidence) == ["stop", "cont", "stop", "cont"]
