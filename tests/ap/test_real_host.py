"""A real AP host: a stock s390x kernel under an unpatched QEMU, adapters of ours.

Uses what is in the cache of images; the first test makes a saved state, if there is none.
"""

from __future__ import annotations

import contextlib
import os
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.ap.agent_wire import FileRequest
from harness.ap.ap_host import ApHost
from harness.ap.fault import Fault
from harness.ap.instruction import ResponseCode
from harness.ap.lease import take_bus
from harness.ap.matrix_device import MATRIX, TYPE, UUIDS
from harness.ap.sie import SyntheticExit
from harness.ap.spec import inner_spec
from harness.errors import CommandFailed, GuestCrashed, HostError, MachineDied, MachineError
from harness.host.journal import Journal
from harness.host.locks import HostLocks
from harness.lab.ap import ApLab
from harness.lab.parts import Parts
from harness.machine.saved_state import Method
from harness.model.ap.hardware import Card
from harness.model.ap.id import Apqn
from harness.settings import Settings
from harness.wait import wait_until

BUS = "/sys/bus/ap"
ALL = "0x" + "f" * 64
Open = Callable[[], ApHost]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> ApLab:
    """Opens hosts of the default kernel."""
    return ApLab(
        Parts(Settings()).ap_host, ways=tuple(Method), work=tmp_path_factory.mktemp("lab")
    )


@pytest.fixture(scope="module")
def host(lab: ApLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApHost]:
    """A host that the tests below share and leave as it was."""
    opened = lab.open(lab.spec(), evidence=tmp_path_factory.mktemp("host"))
    with contextlib.closing(opened):
        yield opened


@pytest.fixture
def own(lab: ApLab, tmp_path: Path) -> Iterator[ApHost]:
    """A host for one test, which may spoil it."""
    with contextlib.closing(lab.open(lab.spec(), evidence=tmp_path)) as opened:
        yield opened


def pid_of(host: ApHost) -> int:
    """Return the process whose command line names our sockets."""
    word = host.machine.sockets.qmp.encode()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        if word in entry.read_bytes():
            return int(entry.parent.name)
    raise LookupError(host.machine.sockets.qmp)


def test_every_queue_of_the_adapters_has_its_driver(host: ApHost) -> None:
    assert host.wait_for_bindings() == "12/12 (complete)"
    assert "cex4queue" in os.fspath(host.run(f"readlink {BUS}/devices/05.0004/driver").stdout)


def test_a_hundred_attributes_come_in_one_trip(host: ApHost) -> None:
    answers = host.batch([FileRequest("r", f"{BUS}/apmask")] * 100)

    assert {answer.text for answer in answers} == {ALL + "\n"}


def test_a_card_that_is_plugged_is_found_by_the_next_scan_and_a_gone_one_goes(
    host: ApHost,
) -> None:
    host.adapters.plug(0x2A, Card(14))
    host.write_text(f"{BUS}/scans", "1")
    assert "2a.00ab" in host.list_directory(f"{BUS}/devices")

    host.adapters.unplug(0x2A)
    host.write_text(f"{BUS}/scans", "1")
    assert "card2a" not in host.list_directory(f"{BUS}/devices")


def test_a_refused_write_says_its_errno(host: ApHost) -> None:
    with pytest.raises(CommandFailed) as caught:
        host.write_text(f"{BUS}/apmask", "nonsense")

    assert (caught.value.exit_status, caught.value.stderr) == (22, "Invalid argument")


def test_a_fault_that_ends_is_outlived_by_the_kernel(host: ApHost) -> None:
    host.adapters.plug(9, Card())
    host.write_text(f"{BUS}/scans", "1")
    mark = host.adapters.mark
    with host.adapters.inject(Fault(ResponseCode.BUSY, on="TAPQ", apqn=Apqn(9, 4), times=3)):
        host.write_text(f"{BUS}/scans", "1")
    host.adapters.unplug(9)
    host.write_text(f"{BUS}/scans", "1")

    codes = [one.response_code for one in host.adapters.since(mark, "TAPQ", Apqn(9, 4))]
    assert ResponseCode.BUSY in codes
    assert "card09" not in host.list_directory(f"{BUS}/devices")


def test_the_kernel_log_since_a_mark_is_what_came_then(host: ApHost) -> None:
    mark = host.kernel_log_mark()
    host.write_text("/dev/kmsg", "a line of ours\n")

    assert host.kernel_log_since(mark) == "a line of ours"
    assert "Linux version" in host.kernel_log()


def program(code: bytes) -> bytes:
    """Return a program for s390x that executes *code*."""
    at = 0x10000
    head = b"\x7fELF\x02\x02\x01" + bytes(9)
    head += struct.pack(">HHIQQQIHHHHHH", 2, 22, 1, at + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = 120 + len(code)
    return head + struct.pack(">IIQQQQQQ", 1, 5, 0, at, at, size, size, 4096) + code


@pytest.mark.parametrize("code", ["b2af0000", "b2ad0046", "ee0000000000"])
def test_an_instruction_of_a_program_is_the_kernels_to_refuse(host: ApHost, code: str) -> None:
    before = host.traps.statistics.foreign["user space"]
    mark = host.adapters.mark
    # GR0 is 0x100, as the test of PLO has it.
    text = (
        bytes.fromhex("a7090100") + bytes.fromhex(code) + bytes.fromhex("a7190000") + b"\x0a\x01"
    )
    host.agent_transport.write("/tmp/illegal", program(text))
    host.run("chmod +x /tmp/illegal")

    assert host.run("/tmp/illegal", check=False).exit_status in (-signal.SIGILL, 132)
    assert host.traps.statistics.foreign["user space"] == before + 1
    assert host.adapters.mark == mark, "no adapter was asked"
    host.traps.check()


def test_the_masks_of_a_leased_bus_come_back(host: ApHost, tmp_path: Path) -> None:
    host.write_text(f"{BUS}/apmask", "-5")
    journal = Journal(tmp_path / "journal", url="ap", boot="now")
    lease = take_bus(host, journal, HostLocks(tmp_path / "locks", run="here"), uuids=UUIDS)
    assert {queue.adapter for queue in lease.free} == {5}
    masked = host.read_text(f"{BUS}/apmask")

    host.write_text(f"{BUS}/aqmask", "-4")
    host.write_text(f"{TYPE}/create", UUIDS[0])
    host.write_text(f"{MATRIX}/{UUIDS[0]}/assign_adapter", "6")
    host.write_text(f"{MATRIX}/{UUIDS[0]}/assign_domain", "4")
    lease.end()

    assert host.read_text(f"{BUS}/apmask") == masked
    assert host.read_text(f"{BUS}/aqmask").strip() == ALL
    assert not host.exists(f"{MATRIX}/{UUIDS[0]}")
    host.write_text(f"{BUS}/apmask", "+5")


def test_a_qemu_in_the_host_has_kvm_and_its_guest_never_runs(host: ApHost, tmp_path: Path) -> None:
    with host.launch(inner_spec("inner"), evidence=tmp_path) as inner:
        assert inner.qmp.execute("query-kvm")["enabled"]
        assert inner.qmp.execute("query-status")["status"] == "prelaunch"
        with pytest.raises(MachineError, match="cont is not given here"):
            inner.qmp.execute("cont")

    with pytest.raises(HostError, match="cannot run"):
        running = inner_spec("running")
        host.launch(type(running)(name="running"), evidence=tmp_path)


def test_a_view_of_sie_is_put_and_taken_away(host: ApHost) -> None:
    with host.sie().entries(SyntheticExit(b"\x83\0\0\0")) as entries:
        host.run("true")

    assert entries == []
    host.traps.check()


def test_two_hosts_of_one_state_are_two(lab: ApLab, own: ApHost, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with contextlib.closing(lab.open(lab.spec(), evidence=tmp_path / "other")) as other:
        own.adapters.unplug(6)
        own.write_text(f"{BUS}/scans", "1")
        other.write_text(f"{BUS}/scans", "1")

        assert "card06" not in own.list_directory(f"{BUS}/devices")
        assert "card06" in other.list_directory(f"{BUS}/devices")


def test_evidence_of_boot_and_of_what_came_after_is_kept(own: ApHost, tmp_path: Path) -> None:
    own.write_text(f"{BUS}/scans", "1")
    own.close()

    assert "TAPQ 05.0004" in (tmp_path / "ap-instructions.log").read_text()
    assert "QCI" in (tmp_path / "boot" / "ap-instructions.log").read_text()
    assert (tmp_path / "gdb.log").stat().st_size > 1000
    assert "trapline: ready" in (tmp_path / "boot" / "console.log").read_text()
    assert (tmp_path / "qemu.cmd").exists()


def test_a_killed_qemu_ends_every_wait_with_its_cause(own: ApHost) -> None:
    os.kill(pid_of(own), signal.SIGKILL)

    with pytest.raises(MachineDied, match="SIGKILL"):
        own.run("true")
    with pytest.raises(MachineDied, match="SIGKILL"):
        own.check()


def test_a_panic_ends_a_command_with_the_panic(own: ApHost) -> None:
    own.write_text("/proc/sys/kernel/sysrq", "1")
    pending = own.write_begin("/proc/sysrq-trigger", "c")

    with pytest.raises(GuestCrashed):
        pending.wait(timeout=60)


def test_a_broken_adapter_is_told_to_who_waits(
    own: ApHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("no such answer")

    monkeypatch.setattr(own.adapters, "pqap", broken)
    pending = own.write_begin(f"{BUS}/scans", "1")

    with pytest.raises(MachineError, match="no such answer"):
        pending.wait(timeout=60)


def test_the_machine_goes_on_when_nobody_stands_behind_it(own: ApHost) -> None:
    own.traps.end()

    wait_until("a command ends", lambda: own.run("echo here").stdout == "here\n", timeout=30)
