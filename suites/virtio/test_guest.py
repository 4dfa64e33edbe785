"""A Linux guest that uses its intel-iommu: which of QEMU's own devices are translated."""

from __future__ import annotations

import pytest

from harness.guest.block import BlockDevice
from harness.guest.guest import Guest
from harness.lab.nested import Nested
from harness.testing import must_fail
from suites.virtio.conftest import DISKS, GuestDisk

pytestmark = pytest.mark.full

TRANSLATED = "vtd_dmar_translate"
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


def translations(nested: Nested, disk: GuestDisk) -> int:
    """Read from *disk*; return how many addresses of its function QEMU translated."""
    guest = os_of(nested)
    path = function_in(guest, disk)
    said = guest.run(
        f"ls -d {path}/virtio*/block/* {path}/nvme/*/nvme*n1 2>/dev/null", check=False
    )
    found = said.stdout.split()
    assert len(found) == 1, f"disks of {disk.name}: {found}"
    block = BlockDevice(guest, f"/dev/{found[0].rpartition('/')[2]}")
    where = disk.where
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
