"""virtio devices in the hands of user space: isolated if they are told to, else not."""

from __future__ import annotations

import pytest

from harness.guest.canary import canary
from harness.guest.vfio_driver import drive
from harness.guest.virtio_rng import write_random
from harness.lab.driver_guest import DriverGuest
from harness.machine.command import Device
from harness.model.pci import Bdf
from harness.parse.dmesg import dmar_faults
from harness.testing import must_fail

pytestmark = pytest.mark.full

TRANSLATED = Device(
    "virtio-rng-pci", "rng-translated", "rp4", "0",
    {"iommu_platform": True, "disable-legacy": "on"},
)  # fmt: skip
PAST = Device("virtio-rng-pci", "rng-past", "rp5", "0", {"disable-legacy": "on"})
"""Without iommu_platform: it goes past the vIOMMU."""
COUNT = 64


def stray_of_virtio(guest: DriverGuest, device: Device) -> tuple[bool, tuple[Bdf, ...], Bdf]:
    """Let *device*, driven by vfio, write to memory that is not mapped for it.

    Return whether that memory is as it was, who faulted, and which function it is.
    """
    host, bdf = guest.host, guest.plug(device).bdf
    by_physical = not device.options.get("iommu_platform", False)
    mark = host.kernel_log_mark()
    with host.bound(bdf, "vfio-pci"), canary(host) as bystander, drive(host, bdf) as driver:
        write_random(driver, bystander.address, COUNT, by_physical=by_physical)
        intact = bystander.intact
    faults = dmar_faults(host.kernel_log_since(mark).splitlines())
    return intact, tuple(fault.source for fault in faults), bdf


def check_isolated(guest: DriverGuest, device: Device) -> None:
    """What the device does outside of what is mapped changes nothing, and is logged."""
    intact, sources, bdf = stray_of_virtio(guest, device)
    assert intact, f"{device.id} wrote to memory that is not mapped for it"
    assert sources[:1] == (bdf,), sources


@pytest.mark.rule("NST-18")
def test_virtio_of_the_platform_is_isolated(shielded_guest: DriverGuest) -> None:
    """With iommu_platform=on a virtio device reaches only what vfio has mapped."""
    check_isolated(shielded_guest, TRANSLATED)


@pytest.mark.negative_control("NST-18")
def test_virtio_past_the_iommu_is_noticed(shielded_guest: DriverGuest) -> None:
    """Without it vfio takes the device all the same, and the check fails."""
    with must_fail():
        check_isolated(shielded_guest, PAST)


@pytest.mark.rule("NST-18")
def test_virtio_without_the_platform_goes_past_the_iommu(shielded_guest: DriverGuest) -> None:
    """Without iommu_platform vfio binds a virtio device, and its DMA is not translated."""
    intact, sources, _ = stray_of_virtio(shielded_guest, PAST)

    assert (intact, sources) == (False, ())
