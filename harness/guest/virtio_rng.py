"""The smallest driver of a virtio device: it lets a virtio-rng write where it is told.

virtio 1.2: capabilities 4.1.4, initialisation 3.1.1, split queues 2.7, the device 5.4. The
function is with vfio-pci and driven through `harness.guest.vfio_driver`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from harness.errors import GuestError
from harness.guest.vfio_driver import VfioDriver
from harness.wait import wait_until

RING = 0x10_0000
"""IOVA of the page with the queue."""
_CONFIG = 7
_POINTER, _VENDOR = 0x34, 0x09
_COMMON, _NOTIFY = 1, 2
_DRIVER_SELECT, _DRIVER_FEATURE, _STATUS = 0x08, 0x0C, 0x14
_SELECT, _SIZE, _ENABLE, _NOTIFY_OFF = 0x16, 0x18, 0x1C, 0x1E
_DESCRIPTORS, _DRIVER_AREA, _DEVICE_AREA = 0x20, 0x28, 0x30
_ACKNOWLEDGE, _DRIVER, _DRIVER_OK, _FEATURES_OK = 1, 2, 4, 8
_VERSION_1, _ACCESS_PLATFORM = 1 << 0, 1 << 1
"""Of feature bits 32 to 63."""
_AVAILABLE, _USED = 0x400, 0x800
_ENTRIES = 8
_WRITE = 2


@dataclass(frozen=True, slots=True)
class Window:
    """A structure in a BAR that a capability leads to."""

    bar: int
    offset: int
    multiplier: int = 0


def write_random(driver: VfioDriver, address: int, count: int, *, by_physical: bool) -> None:
    """Let the device write *count* random bytes to *address*; return when it is done.

    :param by_physical: the queue itself is told by its physical address: for a device that does
        not go through the IOMMU, and would find nothing at an address of user space.
    :raise GuestError: it takes no queue so.
    :raise WaitTimeout: it does not answer in 10 seconds.
    """
    physical = driver.map(RING)
    try:
        windows = _windows(driver)
        _start(driver, windows[_COMMON], physical if by_physical else RING, not by_physical)
        driver.put(RING, struct.pack("<QIHH", address, count, _WRITE, 0))
        driver.put(RING + _AVAILABLE, struct.pack("<HHH", 0, 1, 0))
        common, notify = windows[_COMMON], windows[_NOTIFY]
        queue = driver.read(common.bar, common.offset + _NOTIFY_OFF, width=2)
        driver.write(notify.bar, notify.offset + queue * notify.multiplier, 0, width=2)
        wait_until(
            f"virtio-rng {driver.bdf} has used the buffer",
            lambda: _used(driver) or _needs_reset(driver, common),
            timeout=10,
        )
    finally:
        driver.reset()
        driver.unmap(RING)


def _used(driver: VfioDriver) -> bool:
    return driver.get(RING + _USED + 2, 2) == struct.pack("<H", 1)


def _needs_reset(driver: VfioDriver, common: Window) -> bool:
    """Say whether the device has given up (2.1.1): it could not reach what it was told."""
    return bool(driver.read(common.bar, common.offset + _STATUS, width=1) & 0x40)


def _start(driver: VfioDriver, common: Window, ring: int, through_iommu: bool) -> None:
    def write(register: int, value: int, width: int) -> None:
        driver.write(common.bar, common.offset + register, value, width=width)

    write(_STATUS, 0, 1)
    write(_STATUS, _ACKNOWLEDGE | _DRIVER, 1)
    write(_DRIVER_SELECT, 0, 4)
    write(_DRIVER_FEATURE, 0, 4)
    write(_DRIVER_SELECT, 1, 4)
    write(_DRIVER_FEATURE, _VERSION_1 | (_ACCESS_PLATFORM if through_iommu else 0), 4)
    write(_STATUS, _ACKNOWLEDGE | _DRIVER | _FEATURES_OK, 1)
    status = driver.read(common.bar, common.offset + _STATUS, width=1)
    if not status & _FEATURES_OK:
        raise GuestError(f"virtio-rng {driver.bdf} refuses its features", seen=hex(status))
    write(_SELECT, 0, 2)
    write(_SIZE, _ENTRIES, 2)
    for register, offset in ((_DESCRIPTORS, 0), (_DRIVER_AREA, _AVAILABLE), (_DEVICE_AREA, _USED)):
        write(register, (ring + offset) & 0xFFFF_FFFF, 4)
        write(register + 4, (ring + offset) >> 32, 4)
    write(_ENABLE, 1, 2)
    write(_STATUS, _ACKNOWLEDGE | _DRIVER | _FEATURES_OK | _DRIVER_OK, 1)


def _windows(driver: VfioDriver) -> dict[int, Window]:
    """Return the structures by type; the first of a type counts (4.1.4.1)."""
    found: dict[int, Window] = {}
    at = driver.read(_CONFIG, _POINTER, width=1)
    while at:
        kind, following, _, structure = (driver.read(_CONFIG, at + n, width=1) for n in range(4))
        if kind == _VENDOR and structure not in found:
            bar = driver.read(_CONFIG, at + 4, width=1)
            offset = driver.read(_CONFIG, at + 8)
            factor = driver.read(_CONFIG, at + 16) if structure == _NOTIFY else 0
            found[structure] = Window(bar, offset, factor)
        at = following
    if not {_COMMON, _NOTIFY} <= set(found):
        raise GuestError(f"{driver.bdf} is no modern virtio device", seen=str(found))
    return found
