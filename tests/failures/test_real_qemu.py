"""What we say when a real QEMU is refused, killed, stopped, or its guest's kernel panics."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import GuestCrashed, LaunchFailed, MachineDied, QmpFailed, Unreachable
from harness.guest.keys import RunKey, make_key
from harness.host.virtual import log_in_over_forward, wait_until_ready
from harness.host.virtual_spec import nested_spec
from harness.lab.parts import Parts
from harness.machine.command import Device, MachineSpec
from harness.machine.machine import Machine
from harness.machine.qmp import Qmp

Start = Callable[[MachineSpec], Machine]
TINY = MachineSpec("tiny", memory_mib=64)


def pid_of(machine: Machine) -> int:
    """Return the process whose command line names our sockets."""
    word = machine.sockets.qmp.encode()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        if word in entry.read_bytes():
            return int(entry.parent.name)
    raise LookupError(machine.sockets.qmp)


def test_a_refusal_is_told_with_the_words_of_qemu(launch: Start) -> None:
    with pytest.raises(
        LaunchFailed, match=r"exited with 1(.|\n)*'nonsense' is not a valid device"
    ):
        launch(TINY.adding(Device("nonsense", "x")))


def test_a_killed_qemu_is_told_at_once_with_its_end(launch: Start) -> None:
    machine = launch(TINY)
    os.kill(pid_of(machine), signal.SIGKILL)

    with pytest.raises(MachineDied, match="SIGKILL"):
        machine.qmp.execute("query-status")
    with pytest.raises(MachineDied, match="SIGKILL"):
        machine.check()


def test_a_stopped_qemu_misses_the_deadline_keeps_its_evidence_and_can_be_killed(
    launch: Start, tmp_path: Path
) -> None:
    machine = launch(TINY)
    os.kill(pid_of(machine), signal.SIGSTOP)

    with pytest.raises(QmpFailed, match=r"no answer to query-status within 0\.5 s"):
        machine.qmp.execute("query-status", timeout=0.5)
    assert machine.kill() == -signal.SIGKILL
    assert (tmp_path / "qemu.log").exists()
    assert "query-status" in (tmp_path / "qmp.jsonl").read_text()


def test_a_second_monitor_answers_beside_the_first(launch: Start, tmp_path: Path) -> None:
    machine = launch(TINY)
    debug = Qmp("debug", tmp_path / "debug.jsonl")
    debug.connect(machine.place.connect(machine.sockets.qmp_debug, timeout=5))

    assert debug.execute("query-name") == {"name": "tiny"}
    assert machine.qmp.execute("query-name") == {"name": "tiny"}
    debug.close()


def test_a_guest_without_a_log_in_is_unreachable_with_the_tail_of_its_console(
    launch: Start, tmp_path: Path
) -> None:
    machine = launch(TINY)

    with pytest.raises(Unreachable, match=r"does not say that it is ready(.|\n)*next: ") as caught:
        wait_until_ready(machine, timeout=0.5)
    assert caught.value.evidence == tmp_path / "console.log"


def test_a_guest_refuses_a_wrong_key_and_its_panic_ends_a_waiting_command(
    launch: Start, parts: Parts, tmp_path: Path
) -> None:
    (tmp_path / "right").mkdir()
    (tmp_path / "wrong").mkdir()
    right, wrong = make_key(tmp_path / "right"), make_key(tmp_path / "wrong")
    spec = nested_spec(
        accel="tcg,thread=multi",
        kernel=os.fspath(parts.guest.vmlinuz),
        initrd=os.fspath(parts.guest.initrd),
    )
    machine = launch(spec)
    wait_until_ready(machine, timeout=120)

    with pytest.raises(Unreachable, match="Authentication"):
        log_in_over_forward(machine, None, key=RunKey(wrong.private, right.public), timeout=10)

    guest = log_in_over_forward(machine, None, key=right)
    with pytest.raises(GuestCrashed, match=r"kernel panic(.|\n)*sysrq triggered crash") as caught:
        guest.run("echo c > /proc/sysrq-trigger; sleep 1000", timeout=100)
    assert (caught.value.level, caught.value.kind) == ("L1", "kernel panic")
    with pytest.raises(GuestCrashed):
        machine.check()
    guest.close()
