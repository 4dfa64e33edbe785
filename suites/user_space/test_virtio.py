"""virtio devices in the hands of user space: isolated if they are told to, else not."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from harness.guest.canary import canary
from harness.guest.fault_log import FaultLog
from harness.guest.vfio_driver import drive
from harness.guest.virtio_rng import write_random
from harness.lab.driver_guest import DriverGuest
from harness.machine.command import Device
from harness.model.pci import Bdf
from harness.testing import must_fail

pytestmark = pytest.mark.full

TRANSLATED = Device(
    "virtio-rng-pci", "rng-translated", "rp4", "0",
    {"iommu_platform": True, "disable-legacy": "on"},
)  # fmt: skip
PAST = Device("virtio-rng-pci", "rng-past", "rp5", "0", {"disable-legacy": "on"})
"""Without iommu_platform: it goes past the vIOMMU."""
COUNT = 64


@dataclass(frozen=True, slots=True)
class Stray:
    """What a write of a device to memory that is not mapped for it led to."""

    bdf: Bdf
    intact: bool
    """That memory is as it was."""
    faults: tuple[Bdf, ...]
    """Who faulted."""


def stray_of_virtio(guest: DriverGuest, device: Device) -> Stray:
    """Let *device*, driven by vfio, write to memory that is not mapped for it."""
    host, bdf = guest.host, guest.plug(device).bdf
    by_physical = not device.options.get("iommu_platform", False)
    with host.bound(bdf, "vfio-pci"), canary(host) as bystander, drive(host, bdf) as driver:
        log = FaultLog.listen(host)
        write_random(driver, bystander.address, COUNT, by_physical=by_physical)
        intact = bystander.intact
    faults = log.soon() if intact else log.faults()
    return Stray(bdf, intact, tuple(fault.source for fault in faults))


def check_isolated(stray: Stray) -> None:
    """What the device does outside of what is mapped changes nothing, and is logged."""
    assert stray.intact, f"{stray.bdf} wrote to memory that is not mapped for it"
    assert stray.faults[:1] == (stray.bdf,), stray.faults


def check_past(stray: Stray) -> None:
    """It is not translated: it arrives, and nobody faults."""
    assert not stray.intact, f"{stray.bdf} wrote nothing"
    assert not stray.faults, stray.faults


@pytest.mark.rule("NST-18")
@pytest.mark.negative_control("NST-18")
def test_virtio_of_the_platform_is_isolated(shielded_guest: DriverGuest) -> None:
    """With iommu_platform=on a virtio device reaches only what vfio has mapped."""
    stray = stray_of_virtio(shielded_guest, TRANSLATED)

    check_isolated(stray)
    with must_fail():
        check_past(stray)


@pytest.mark.rule("NST-18")
@pytest.mark.negative_control("NST-18")
def test_virtio_without_the_platform_goes_past_the_iommu(shielded_guest: DriverGuest) -> None:
    """Without iommu_platform vfio binds a virtio device, and its DMA is not translated."""
    stray = stray_of_virtio(shielded_guest, PAST)

    check_past(stray)
    with must_fail():
        check_isolated(stray)
