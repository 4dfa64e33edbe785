"""A Linux guest that uses its intel-iommu: which of QEMU's own devices are translated."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from harness.guest.block import BlockDevice
from harness.guest.guest import Guest
from harness.lab.nested import Nested
from harness.machine.vtd import read_translation
from harness.model.vtd.tables import Translation
from harness.testing import must_fail
from suites.virtio.conftest import DISKS, GuestDisk

pytestmark = pytest.mark.full

TRANSLATED = "vtd_dmar_translate"
INVALIDATED = "vtd_inv_desc"
_DEVICE_TLB = re.compile(r"type device high \S+ low 0x([0-9a-f]+)")
_ATS, _ATS_CONTROL, _ATS_ENABLE = 0x0F, 6, 1 << 15
_PLATFORM_BIT = 33
_LENGTH = 64 * 1024


def os_of(nested: Nested) -> Guest:
    """Return the guest; there must be one."""
    assert nested.guest is not None
    return nested.guest


def function_in(guest: Guest, disk: GuestDisk) -> str:
    """Return the sysfs directory of *disk*'s function."""
    return f"/sys/bus/pci/devices/{disk.where}"


def features_of(guest: Guest, disk: GuestDisk) -> str:
    """Return the features that the driver of a virtio *disk* took: a digit for each bit."""
    return guest.run(f"cat {function_in(guest, disk)}/virtio*/features").stdout.strip()


def block_of(nested: Nested, disk: GuestDisk) -> BlockDevice:
    """Return *disk* as its guest's block layer has it."""
    guest = os_of(nested)
    path = function_in(guest, disk)
    said = guest.run(
        f"ls -d {path}/virtio*/block/* {path}/nvme/*/nvme*n1 2>/dev/null", check=False
    )
    found = said.stdout.split()
    assert len(found) == 1, f"disks of {disk.name}: {found}"
    return BlockDevice(guest, f"/dev/{found[0].rpartition('/')[2]}")


def translations(nested: Nested, disk: GuestDisk) -> int:
    """Read from *disk*; return how many addresses of its function QEMU translated."""
    block, where = block_of(nested, disk), disk.where
    with nested.machine.tracing(TRANSLATED) as window:
        block.holds(0, offset=0, length=_LENGTH)
    source = f"dev {where.bus:02x}:{where.device:02x}.{where.function:02x} "
    return window.count(TRANSLATED, source)


def check_translated(nested: Nested, disk: GuestDisk) -> None:
    """What the disk does by DMA is translated."""
    assert translations(nested, disk) > 0, f"{disk.name} goes past the IOMMU"


def check_bypasses(nested: Nested, disk: GuestDisk) -> None:
    """It is not."""
    count = translations(nested, disk)
    assert count == 0, f"{disk.name}: {count} translations"


def check_takes_the_platform(features: str) -> None:
    """The driver uses the platform's DMA."""
    assert features[_PLATFORM_BIT : _PLATFORM_BIT + 1] == "1", features


@pytest.mark.rule("VTD-58")
@pytest.mark.negative_control("VTD-59")
@pytest.mark.parametrize("name", ["platform", "ats"])
def test_virtio_of_the_platform_is_translated(translating: Nested, name: str) -> None:
    """virtio with ``iommu_platform=on`` is translated, and its driver has taken bit 33."""
    disk = DISKS[name]

    check_takes_the_platform(features_of(os_of(translating), disk))
    check_translated(translating, disk)
    with must_fail():
        check_bypasses(translating, disk)


@pytest.mark.rule("VTD-59")
@pytest.mark.negative_control("VTD-58", "VTD-60")
def test_other_virtio_bypasses(translating: Nested) -> None:
    """virtio without it reaches memory past the IOMMU, although the guest translates."""
    disk = DISKS["plain"]

    check_bypasses(translating, disk)
    with must_fail():
        check_translated(translating, disk)
    with must_fail():
        check_takes_the_platform(features_of(os_of(translating), disk))


@pytest.mark.rule("VTD-60")
def test_other_devices_are_translated_always(translating: Nested) -> None:
    """An emulated nvme was told nothing about an IOMMU, and is translated."""
    check_translated(translating, DISKS["nvme"])


# -- address translation services ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ats:
    """What a guest does about translations that a function may keep.

    :param enabled: ATS of the function; None: it has no such capability.
    :param entry: how the tables translate it.
    :param invalidations: of its device-TLB, while it was read.
    :param others: device-TLB invalidations that named another function.
    """

    enabled: bool | None
    entry: Translation | None
    invalidations: int
    others: int


def ats_of(nested: Nested, disk: GuestDisk) -> Ats:
    """Read from *disk* and see."""
    function = os_of(nested).function(disk.where)
    controls = [
        int.from_bytes(function.config[one.offset + _ATS_CONTROL :][:2], "little")
        for one in function.capabilities
        if one.extended and one.id == _ATS
    ]
    block = block_of(nested, disk)
    with nested.machine.tracing(INVALIDATED) as window:
        block.holds(0, offset=0, length=_LENGTH)
    found = [_DEVICE_TLB.search(event.arguments) for event in window.events]
    sources = [int(match[1], 16) >> 32 & 0xFFFF for match in found if match]
    mine = sources.count(disk.where.source_id)
    return Ats(
        bool(controls[0] & _ATS_ENABLE) if controls else None,
        read_translation(nested.machine, disk.where),
        mine,
        len(sources) - mine,
    )


def check_ats_is_used(seen: Ats) -> None:
    """Linux enabled ATS, allows it in the function's entry, and invalidates its device-TLB."""
    assert seen.enabled, f"ATS of the function: {seen.enabled}"
    assert seen.entry is not None and seen.entry.device_tlb, f"{seen.entry}"
    assert seen.invalidations > 0, "no invalidation of its device-TLB"


def check_ats_is_not_used(seen: Ats) -> None:
    """The function cannot, and nobody behaves as if it could."""
    assert seen.enabled is None, f"ATS of the function: {seen.enabled}"
    assert seen.entry is not None and not seen.entry.device_tlb, f"{seen.entry}"
    assert seen.invalidations == 0, f"{seen.invalidations} invalidations of its device-TLB"


@pytest.mark.rule("VTD-54")
def test_ats_of_virtio_is_used(translating: Nested) -> None:
    """With device-iotlb, Linux lets virtio with ``ats=on`` keep translations, and takes them back.

    QEMU's own virtio keeps none: what is told to vhost is in `test_vhost_data`.
    """
    seen = ats_of(translating, DISKS["ats"])

    check_ats_is_used(seen)
    with must_fail():
        check_ats_is_not_used(seen)


@pytest.mark.negative_control("VTD-54")
@pytest.mark.parametrize("name", ["platform", "plain", "nvme"])
def test_devices_without_ats_are_noticed(translating: Nested, name: str) -> None:
    """Functions without the capability have no device-TLB, and nothing of theirs is taken back."""
    seen = ats_of(translating, DISKS[name])

    check_ats_is_not_used(seen)
    assert seen.others == 0, f"{seen.others} invalidations of other functions"
    with must_fail():
        check_ats_is_used(seen)
