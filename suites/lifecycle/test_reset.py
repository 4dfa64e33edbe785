"""What a reset does to an assigned function: by QEMU, by the guest, by the power state."""

from collections.abc import Collection
from dataclasses import replace

import pytest

from harness.guest.edu import Edu
from harness.host.host import Host
from harness.host.virtual_spec import assigned_device
from harness.lab.assigned import Assigned
from harness.machine.command import Device, MachineSpec
from harness.machine.machine import Machine
from harness.model.pci import Bdf, PciId
from harness.suite_fixtures import Free, Launch
from harness.testing import check_said, must_fail, only
from suites.lifecycle.conftest import spec_with

RESET_EVENTS = ("vfio_pci_reset*", "vfio_pci_hot_reset*")


def reset(machine: Machine) -> tuple[str, ...]:
    """Reset the machine; return the vfio-pci events of that, in order, each name once."""
    with machine.tracing(*RESET_EVENTS) as window:
        before = machine.qmp.mark()
        machine.qmp.execute("system_reset")
        machine.qmp.wait_event("RESET", timeout=30, since=before)
    return tuple(dict.fromkeys(event.name for event in window.events))


def resettable(host: Host, name: str, bdf: Bdf) -> MachineSpec:
    """Return a machine with a function that a reset does not end."""
    return replace(spec_with(host, assigned_device(name, str(bdf)), name=name), no_reboot=False)


@pytest.fixture
def with_flr(host: Host, free: Free, launch: Launch) -> Machine:
    """A machine with a function that has function level reset."""
    return launch(resettable(host, "nvme", free("nvme").bdf))


@pytest.fixture
def without_reset(host: Host, free: Free, launch: Launch) -> Machine:
    """A machine with a function that has no reset of any kind."""
    return launch(resettable(host, "edu", free("edu").bdf))


def check_order(events: Collection[str], last: str) -> None:
    """QEMU tried the ways in the order of ``vfio_pci_reset()``, and ended with *last*."""
    ways = ["vfio_pci_reset", "vfio_pci_reset_flr", "vfio_pci_hot_reset", "vfio_pci_reset_pm"]
    tried = [name for name in events if name in ways]
    assert tried[-1:] == [last], f"it ended with {tried[-1:]}: {events}"
    assert tried[:1] == ["vfio_pci_reset"], events
    assert tried == sorted(tried, key=ways.index), events


def check_complains(machine: Machine, bdf: Bdf) -> None:
    """QEMU has said that the function cannot be reset, and goes on."""
    words = f"vfio: Cannot reset device {bdf}, no available reset mechanism."
    check_said(machine.stderr(), words)
    machine.check()


@pytest.mark.rule("RST-01")
@pytest.mark.negative_control("RST-02")
def test_function_level_reset_comes_first(with_flr: Machine, host: Host) -> None:
    """A function that has a function level reset is reset by it, nothing else is tried."""
    check_order(reset(with_flr), "vfio_pci_reset_flr")
    with must_fail():
        check_complains(with_flr, host.find_one(PciId(0x1B36, 0x0010)).bdf)


@pytest.mark.rule("RST-02")
@pytest.mark.negative_control("RST-01")
def test_no_way_to_reset_is_said(without_reset: Machine, host: Host) -> None:
    """Of a function that cannot be reset QEMU says so at each reset; the machine goes on."""
    events = reset(without_reset)

    check_complains(without_reset, host.find_one(PciId(0x1234, 0x11E8)).bdf)
    with must_fail():
        check_order(events, "vfio_pci_reset_flr")


def check_unmapped(assigned: Assigned) -> None:
    """No BAR of it decodes anywhere, and nothing of it is in the map."""
    assert not assigned.machine.bar_addresses(assigned.name)
    found = assigned.memory_map()
    assert not assigned.expectation().compare(found), assigned.expectation().explain(found)


@pytest.fixture
def programmed(host: Host, free: Free, launch: Launch) -> Assigned:
    """An nvme whose BARs firmware has programmed."""
    function = free("nvme")
    # On the root bus: behind a port it would be out of sight after a reset.
    device = Device("vfio-pci", "nvme", "pcie.0", "0x10", {"host": str(function.bdf)})
    spec = replace(spec_with(host, device, name="programmed"), paused=False, no_reboot=False)
    machine = launch(spec)
    machine.wait_until_mapped("nvme")
    return Assigned("nvme", function, host, machine)


@pytest.mark.rule("RST-08")
@pytest.mark.negative_control("RST-08")
def test_reset_takes_bars_from_the_map(programmed: Assigned) -> None:
    """After a reset of the machine no BAR is mapped, until firmware programs it again."""
    machine = programmed.machine
    with must_fail():
        check_unmapped(programmed)

    with machine.stopped():
        machine.qmp.execute("system_reset")
        check_unmapped(programmed)

    machine.wait_until_mapped(programmed.name)


BUS_MASTER = 0x4
"""Bit of the command register."""


def command_of(host: Host, bdf: Bdf) -> int:
    """Return the command register that the device has."""
    return int(host.probe("config", "read", str(bdf), 4, "--width", "2")["last"], 16)


def check_master(assigned: Assigned, *, on: bool) -> None:
    """The device may be, or may not be, a bus master."""
    command = command_of(assigned.host, assigned.function.bdf)
    assert bool(command & BUS_MASTER) == on, f"{command:#06x}"


@only("edu")
@pytest.mark.parametrize("on", [True, False], ids=["on", "off"])
@pytest.mark.rule("RST-10")
def test_bus_mastering_of_the_guest_is_that_of_the_device(assigned: Assigned, on: bool) -> None:
    """The device's own bus master bit follows the one that the guest writes."""
    edu = Edu(assigned.os, assigned.bdf)
    edu.configure(dma=on)
    try:
        check_master(assigned, on=on)
    finally:
        edu.configure()


@only("edu")
@pytest.mark.negative_control("RST-10")
def test_a_device_that_does_not_follow_is_noticed(assigned: Assigned) -> None:
    """A device whose bit somebody else has cleared is not as the guest wrote it."""
    bdf = assigned.function.bdf
    edu = Edu(assigned.os, assigned.bdf)
    edu.configure(dma=True)
    try:
        value = command_of(assigned.host, bdf) & ~BUS_MASTER
        assigned.host.probe("config", "write", str(bdf), 4, "--width", "2", "--value", value)
        with must_fail():
            check_master(assigned, on=True)
    finally:
        edu.configure()


def check_unassigned(words: Collection[int]) -> None:
    """Nothing answered: QEMU reads memory that nobody has as zero."""
    assert set(words) == {0}, words


@only("edu")
@pytest.mark.rule("RST-11")
def test_reads_end_while_decoding_is_off(assigned: Assigned) -> None:
    """While the guest has memory decoding off its reads of a BAR end, and nobody answers."""
    with assigned.decoding_off():
        words = assigned.words(0, 0, 4)

    check_unassigned(words)


@only("edu")
@pytest.mark.negative_control("RST-11")
def test_an_answer_is_noticed(assigned: Assigned) -> None:
    """While it is on the device answers."""
    words = assigned.words(0, 0, 4)

    with must_fail():
        check_unassigned(words)


def check_asleep(host: Host, bdf: Bdf) -> None:
    """The function is in D3hot."""
    state = host.read_text(f"/sys/bus/pci/devices/{bdf}/power_state").strip()
    assert state == "D3hot", state


@pytest.mark.rule("RST-14")
def test_unused_functions_sleep(host: Host, free: Free) -> None:
    """What vfio-pci has and nobody uses is in D3hot."""
    check_asleep(host, free("e1000e").bdf)


@pytest.mark.full
@pytest.mark.negative_control("RST-14")
def test_a_function_in_use_is_noticed(host: Host, free: Free, launch: Launch) -> None:
    """In a machine it is not."""
    bdf = free("e1000e").bdf
    launch(spec_with(host, assigned_device("e1000e", str(bdf))))

    with must_fail():
        check_asleep(host, bdf)
