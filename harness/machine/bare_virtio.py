"""A driver of a modern virtio PCI function in forty lines, over qtest: just enough to start it.

It negotiates features, gives each queue a place and says DRIVER_OK (virtio 1.3, 3.1.1 and
4.1.4), for what QEMU does at that moment: only then does vhost start. `BareQueue` serves a queue.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from harness.errors import MachineError
from harness.machine.bare_pci import BarePci
from harness.machine.qtest import Qtest, Width
from harness.model.pci import Bdf

VERSION_1: Final = 1 << 32
ACCESS_PLATFORM: Final = 1 << 33
"""VIRTIO_F_ACCESS_PLATFORM, QEMU's ``iommu_platform``: the device uses the platform's DMA."""

_VENDOR: Final = 0x09
_COMMON, _NOTIFY = 1, 2
_ATS: Final = 0x000F
_ATS_ENABLE: Final = 1 << 15
_MSIX_BAR, _MODERN_BAR = 1, 4
"""Where QEMU's virtio-pci has them (``virtio_pci_realize()``)."""

_ACKNOWLEDGE, _DRIVER, _DRIVER_OK, _FEATURES_OK = 1, 2, 4, 8
_QUEUE_BYTES: Final = 0x10000
RINGS: Final = 0x10_0000
"""Where the queues lie, from the beginning of memory, as the device is told."""
RING_PAGES: Final = 2 * _QUEUE_BYTES // 0x1000
"""What the first two take."""
_DESCRIPTORS, _AVAILABLE, _USED = 0, 0x4000, 0x8000


@dataclass(frozen=True, slots=True)
class Started:
    """What came of it."""

    offered: int
    """Features of the device."""
    status: int
    """Device status after DRIVER_OK."""

    @property
    def platform(self) -> bool:
        """It offers to use the platform's DMA."""
        return bool(self.offered & ACCESS_PLATFORM)

    @property
    def runs(self) -> bool:
        """The device has taken the features and is in use."""
        return self.status == _ACKNOWLEDGE | _DRIVER | _FEATURES_OK | _DRIVER_OK


class BareVirtio:
    """The virtio function at *bdf*, on a bus of its own behind *port*."""

    def __init__(self, pci: BarePci, port: Bdf, bdf: Bdf) -> None:
        self._pci = pci
        self.bdf = bdf
        pci.open_port(port, bdf.bus)
        pci.place(bdf, memory=_MSIX_BAR, prefetch=_MODERN_BAR)
        self._common = self._find_common()

    def enable_ats(self) -> None:
        """Let the function use address translation services.

        :raise MachineError: it has no such capability.
        """
        control = self._pci.extended(self.bdf, _ATS) + 6
        self._pci.write(self.bdf, control, _ATS_ENABLE, 2)

    def start(self, wanted: int = VERSION_1 | ACCESS_PLATFORM, *, queues: int = 2) -> Started:
        """Take those of the *wanted* features that are offered, set up *queues*, and start.

        :raise MachineDied: QEMU ended over it.
        """
        self._write(0x14, 0, 1)
        self._write(0x14, _ACKNOWLEDGE, 1)
        self._write(0x14, _ACKNOWLEDGE | _DRIVER, 1)
        offered = 0
        for half in (0, 1):
            self._write(0x00, half)
            offered |= self._read(0x04) << 32 * half
            self._write(0x08, half)
            self._write(0x0C, (wanted & offered) >> 32 * half & 0xFFFF_FFFF)
        self._write(0x14, _ACKNOWLEDGE | _DRIVER | _FEATURES_OK, 1)
        for queue in range(queues):
            base = self._pci.board.ram + RINGS + queue * _QUEUE_BYTES
            self._write(0x16, queue, 2)
            for offset, place in ((0x20, _DESCRIPTORS), (0x28, _AVAILABLE), (0x30, _USED)):
                self._write(offset, base + place & 0xFFFF_FFFF)
                self._write(offset + 4, base + place >> 32)
            self._write(0x1C, 1, 2)
        self._write(0x14, _ACKNOWLEDGE | _DRIVER | _FEATURES_OK | _DRIVER_OK, 1)
        return Started(offered, self._read(0x14, 1))

    def stop(self) -> None:
        """Reset the device: vhost lets go of it."""
        self._write(0x14, 0, 1)
        self._read(0x14, 1)

    def notify(self, queue: int) -> None:
        """Tell the device that *queue* has something new (virtio 1.3, 4.1.4.4)."""
        place, capability = self._find(_NOTIFY)
        each = self._pci.read(self.bdf, capability + 16)
        self._write(0x16, queue, 2)
        self._pci.qtest.write(place + each * self._read(0x1E, 2), queue, 2)

    def queue(self, number: int, physical: Callable[[int], int] = lambda it: it) -> BareQueue:
        """Return a queue, to be served; *physical*: where in memory what the device is told is."""
        base = self._pci.board.ram + RINGS + number * _QUEUE_BYTES
        return BareQueue(self, number, base, physical)

    @property
    def qtest(self) -> Qtest:
        """The machine's memory."""
        return self._pci.qtest

    def _find_common(self) -> int:
        return self._find(_COMMON)[0]

    def _find(self, kind: int) -> tuple[int, int]:
        """Return the address of a structure, and the offset of the capability that tells it."""
        for offset in self._pci.capabilities(self.bdf, _VENDOR):
            if self._pci.read(self.bdf, offset + 3, 1) == kind:
                bar = self._pci.read(self.bdf, offset + 4, 1)
                place = self._pci.bar(self.bdf, bar) + self._pci.read(self.bdf, offset + 8)
                return place, offset
        raise MachineError(f"{self.bdf} is no modern virtio function")

    def _read(self, offset: int, width: Width = 4) -> int:
        return self._pci.qtest.read(self._common + offset, width)

    def _write(self, offset: int, value: int, width: Width = 4) -> None:
        self._pci.qtest.write(self._common + offset, value, width)


@dataclass(slots=True)
class BareQueue:
    """A split queue, a buffer at a time, as often as it is long at most (virtio 1.3, 2.7)."""

    driver: BareVirtio
    number: int
    base: int
    physical: Callable[[int], int]
    _offered: int = field(default=0)

    def offer(self, address: int, length: int, *, writable: bool) -> None:
        """Give the device a buffer and tell it."""
        number, qtest = self._offered, self.driver.qtest
        self._offered += 1
        flags = 2 if writable else 0
        qtest.put(
            self.physical(self.base + _DESCRIPTORS) + 16 * number,
            address.to_bytes(8, "little") + length.to_bytes(4, "little") + bytes([flags, 0, 0, 0]),
        )
        ring = self.physical(self.base + _AVAILABLE)
        qtest.write(ring, 1, 2)  # no interrupts
        qtest.write(ring + 4 + 2 * number, number, 2)
        qtest.write(ring + 2, self._offered, 2)
        self.driver.notify(self.number)

    @property
    def returned(self) -> bool:
        """The device has given back all that it was given."""
        used = self.driver.qtest.read(self.physical(self.base + _USED) + 2, 2)
        return used == self._offered
