"""A device that another process opened, passed to QEMU as a descriptor (`fd=`)."""

from contextlib import AbstractContextManager
from dataclasses import replace

import pytest

from harness.host.host import Host
from harness.machine.command import Device, MachineSpec
from harness.machine.machine import Machine
from harness.model.pci import PciFunction
from harness.suite_fixtures import Free, Launch
from harness.testing import must_fail, skip
from harness.wait import wait_until
from suites.lifecycle.conftest import spec_with
from suites.lifecycle.test_iommufd_backend import BACKEND, with_iommufd

__all__ = ["with_iommufd"]

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("with_iommufd")]

DESCRIPTOR = 9
"""A shell of POSIX has words for descriptors of one digit only."""


def opened(host: Host, function: PciFunction) -> AbstractContextManager[None]:
    """Have QEMU started by one that opened the device of *function* for it, while inside."""
    (name,) = host.run(f"ls /sys/bus/pci/devices/{function.bdf}/vfio-dev").stdout.split()
    opener = f'exec {DESCRIPTOR}<>/dev/vfio/devices/{name} && exec "$0" "$@"'
    return host.starting_by("sh", "-c", opener)


def machine_with(host: Host, device: Device) -> MachineSpec:
    """Return a machine whose firmware programs the device, by iommufd if it says so."""
    spec = replace(spec_with(host, device, name="passed"), paused=False)
    return replace(spec, objects=(f"iommufd,id={BACKEND}",) if "iommufd" in device.options else ())


def names_of(machine: Machine) -> frozenset[str]:
    """Return what BARs are called after; waits until one is mapped."""

    def seen() -> frozenset[str]:
        names = [row.name for row in machine.memory_map().memory.regions]
        return frozenset(name.partition(" BAR ")[0] for name in names if " BAR " in name)

    return wait_until(
        f"{machine.spec.name}: a BAR is mapped", seen, timeout=60, guards=(machine.check,)
    )


def check_called(machine: Machine, name: str) -> None:
    """The regions of the only assigned function are called after *name*."""
    assert names_of(machine) == {name}


def name_of(host: Host, given: str) -> str:
    """Return what a passed device with the id *given* is called: since 10.1 after its id."""
    return given if given and host.qemu.version.has(10, 1) else f"VFIO_FD{DESCRIPTOR}"


def passed(given: str) -> Device:
    """Return the device that QEMU is given open, with the id *given*."""
    return Device("vfio-pci", given, "rp0", "0", {"fd": str(DESCRIPTOR), "iommufd": BACKEND})


@pytest.mark.rule("NM-04")
def test_a_passed_device_is_called_after_its_id(host: Host, free: Free, launch: Launch) -> None:
    """Its regions are called after its id; before 10.1 after the descriptor."""
    with opened(host, free("nvme")):
        machine = launch(machine_with(host, passed("passed")))

    check_called(machine, name_of(host, "passed"))


@pytest.fixture
def survives(host: Host) -> None:
    """This QEMU takes a descriptor without an id."""
    if host.qemu.version.has(11, 1):
        skip(
            "this QEMU crashes of it (docs/findings/descriptor-without-id.md)",
            enabled_by="QEMU 9.0 to 11.0",
        )


@pytest.mark.rule("NM-04")
@pytest.mark.usefixtures("survives")
def test_a_passed_device_without_id_is_called_after_its_descriptor(
    host: Host, free: Free, launch: Launch
) -> None:
    """Its regions are called after the descriptor if it has no id."""
    with opened(host, free("nvme")):
        machine = launch(machine_with(host, passed("")))

    check_called(machine, name_of(host, ""))


@pytest.mark.negative_control("NM-04")
def test_a_device_that_qemu_opens_is_noticed(host: Host, free: Free, launch: Launch) -> None:
    """One that QEMU opens itself is called after its address, id or not."""
    device = Device(
        "vfio-pci", "passed", "rp0", "0", {"host": str(free("nvme").bdf), "iommufd": BACKEND}
    )  # fmt: skip
    machine = launch(machine_with(host, device))

    with must_fail():
        check_called(machine, name_of(host, "passed"))
