"""A nested machine where no processor helps: TCG in the host, a device assigned all the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from harness.host.host import Host
from harness.host.virtual_spec import assigned_device, nested_spec
from harness.machine.machine import Machine
from harness.machine.qtest import Qtest
from harness.suite_fixtures import Free, Launch
from harness.testing import must_fail
from harness.wait import wait_until

pytestmark = pytest.mark.full

ADDRESS = 0x20_0000
PATTERN = 0x5A5A_5A5A_5A5A_5A5A
SOURCE, TARGET, COUNT, COMMAND = 0x80, 0x88, 0x90, 0x98
BUFFER, TO_MEMORY = 0x40000, 0x3
MEMORY, MASTER = 0x2, 0x4


@dataclass(frozen=True, slots=True)
class Emulated:
    """The machine, and our hand in its address space beside its processor."""

    machine: Machine
    qtest: Qtest


@pytest.fixture
def emulated_machine(host: Host, free: Free, launch: Launch) -> Iterator[Emulated]:
    """A machine under TCG with an edu assigned; its firmware has programmed the device."""
    socket = "/run/trapline-emulated.qtest"
    device = assigned_device("edu", str(free("edu").bdf))
    spec = nested_spec(accel="tcg,thread=multi", assigned=[device], memory_mib=64)
    words = ("-qtest", f"unix:{socket},server=on,wait=off", "-qtest-log", "none")
    machine = launch(replace(spec, extra=words))
    machine.wait_until_mapped("edu", timeout=180)
    qtest = Qtest(machine.place.connect(socket, timeout=10), name="emulated")
    yield Emulated(machine, qtest)
    qtest.close()


def check_assigned_without_kvm(emulated: Emulated, *, command: int) -> None:
    """TCG runs the machine, and with *command* the assigned device reaches its memory."""
    machine, qtest = emulated.machine, emulated.qtest
    assert machine.qmp.execute("query-kvm")["enabled"] is False
    bdf, registers = machine.function_of("edu").bdf, machine.bar_addresses("edu")[0]
    qtest.config_write(bdf.bus, bdf.device, bdf.function, 0x04, command, 2)
    qtest.write(ADDRESS, PATTERN, 8)
    for register, value in ((SOURCE, BUFFER), (TARGET, ADDRESS), (COUNT, 8), (COMMAND, TO_MEMORY)):
        qtest.write(registers + register, value, 8)
    wait_until("engine of edu idle", lambda: not qtest.read(registers + COMMAND) & 1, timeout=30)
    found = qtest.read(ADDRESS, 8)
    assert found == 0, f"{found:#x}: the device did not reach the memory of the machine"


@pytest.mark.rule("NST-04")
def test_tcg_has_assigned_devices(emulated_machine: Emulated) -> None:
    """Without nested hardware virtualisation a nested machine runs under TCG, with vfio-pci."""
    check_assigned_without_kvm(emulated_machine, command=MEMORY | MASTER)


@pytest.mark.negative_control("NST-04")
def test_a_device_that_reaches_nothing_is_noticed(emulated_machine: Emulated) -> None:
    """An assigned device that may not be bus master fails the check."""
    with must_fail():
        check_assigned_without_kvm(emulated_machine, command=MEMORY)
