"""Properties of vfio-pci all at once: sets in which every two values come together.

A property that is not about the map must not change it, whatever it meets. Each set is given to
one device of a machine with firmware only; see `harness.model.combinations` for how many there
are (``TRAPLINE_COMBINATIONS``).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pytest

from harness.host.host import Host
from harness.lab.assigned import Assigned
from harness.model.combinations import VARIABLE, Strength, combine
from harness.model.pci import PciId
from harness.model.vfio.mapping import VfioOptions
from harness.suite_fixtures import FirmwareOnly
from harness.testing import must_fail

pytestmark = pytest.mark.full

Word = str | int | bool
ROOM: Final = {"nvme": 2, "e1000e": 4, "igb": 5}
"""A BAR where the MSI-X table of a device may go (``x-msix-relocation``)."""
DEVICES: Final = (*ROOM, "edu")

# Not x-no-kvm-intx: with it a pin that is raised takes the mappings away (INT-07), and in one run
# the firmware had left that of an nvme raised.
PROPERTIES: Final[Mapping[str, Sequence[Word | None]]] = {
    "x-no-mmap": (None, True),
    "x-msix-relocation": (None, True),
    "x-no-kvm-msi": (None, True),
    "x-no-kvm-msix": (None, True),
    "x-no-kvm-ioeventfd": (None, True),
    "rombar": (None, 0),
    "x-pci-vendor-id": (None, 0x1AF4),
    "x-pci-device-id": (None, 0x5AE1),
    "x-pci-sub-vendor-id": (None, 0x1AF4),
    "x-pci-sub-device-id": (None, 0x1100),
}
_ABOUT_THE_MAP: Final = ("x-no-mmap", "x-msix-relocation")


@dataclass(frozen=True, slots=True)
class Told:
    """What one device is told."""

    device: str
    row: tuple[tuple[str, Word | None], ...]

    @property
    def options(self) -> VfioOptions:
        """What it is about the map."""
        said = dict(self.row)
        room = ROOM.get(self.device) if said["x-msix-relocation"] else None
        return VfioOptions(no_mmap=bool(said["x-no-mmap"]), msix_relocation=room)

    @property
    def others(self) -> dict[str, Word]:
        """The other properties that are said."""
        return {n: v for n, v in self.row if v is not None and n not in _ABOUT_THE_MAP}

    def id_of(self, real: PciId) -> PciId:
        """Return the id that the guest must see."""
        said = self.others
        vendor, device = said.get("x-pci-vendor-id"), said.get("x-pci-device-id")
        return PciId(int(vendor or real.vendor), int(device or real.device))

    def __str__(self) -> str:
        return ",".join([self.device, *(n for n, value in self.row if value is not None)])


def machines(strength: Strength) -> list[tuple[Told, ...]]:
    """Return machines whose devices are told a set each."""
    rows = [tuple(row.items()) for row in combine(PROPERTIES, strength)]
    names = itertools.cycle(DEVICES)
    told = [Told(next(names), row) for row in rows]
    return [tuple(told[at : at + len(DEVICES)]) for at in range(0, len(told), len(DEVICES))]


CASES = [
    pytest.param(machine, told, id=str(told))
    for machine in machines(Strength.parse(os.environ.get(VARIABLE, "")))
    for told in machine
]


@pytest.fixture
def device(
    firmware_only: FirmwareOnly, host: Host, machine: tuple[Told, ...], told: Told
) -> Assigned:
    """The device of *told* in its machine; what this QEMU does not have is not said."""
    known = host.qemu.features.device_properties("vfio-pci")
    more = {
        one.device: {name: value for name, value in one.others.items() if name in known}
        for one in machine
    }
    each = {one.device: one.options for one in machine}
    return firmware_only(each=each, more=more).assigned[told.device]


def check_map(device: Assigned) -> None:
    """Its map is what the two properties about the map imply."""
    expected, found = device.expectation(), device.memory_map()
    assert not expected.compare(found), expected.explain(found)


def check_id(device: Assigned, wanted: PciId) -> None:
    """The machine shows it by the id that it was given."""
    seen = device.machine.function_of(device.name).id
    assert seen == wanted, f"{device.name} is {seen}, expected {wanted}"


@pytest.mark.parametrize(("machine", "told"), CASES)
@pytest.mark.rule("MAP-18")
def test_other_properties_do_not_change_the_map(device: Assigned, told: Told) -> None:
    """Whatever else a device is told, its map follows from what is about the map."""
    check_map(device)
    check_id(device, told.id_of(device.function.id))


@pytest.mark.parametrize(("machine", "told"), CASES[:1])
@pytest.mark.negative_control("MAP-18")
def test_another_map_and_another_id_are_noticed(device: Assigned, told: Told) -> None:
    """A device that is mapped otherwise, or shown by another id, fails the checks."""
    slow = Assigned(
        device.name, device.function, device.host, device.machine, None, VfioOptions(no_mmap=True)
    )

    with must_fail():
        check_map(slow)
    with must_fail():
        check_id(device, PciId(0x1234, 0x5678))
