"""A driver of a modern virtio PCI function in forty lines, over qtest: just enough to start it.

It negotiates features, gives each queue a place and says DRIVER_OK (virtio 1.3, 3.1.1 and
4.1.4), for what QEMU does at that moment: only then does vhost start. It serves no queue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from harness.errors import MachineError
from harness.machine.bare_pci import BarePci
from harness.machine.qtest import Width
from harness.model.pci import Bdf

VERSION_1: Final = 1 << 32
ACCESS_PLATFORM: Final = 1 << 33
"""VIRTIO_F_ACCESS_PLATFORM, QEMU's ``iommu_platform``: the device uses the platform's DMA."""

_VENDOR: Final = 0x09
_COMMON: Final = 1
_ATS: Final = 0x000F
_ATS_ENABLE: Final = 1 << 15
_MSIX_BAR, _MODERN_BAR = 1, 4
"""Where QEMU's virtio-pci has them (``virtio_pci_realize()``)."""

_ACKNOWLEDGE, _DRIVER, _DRIVER_OK, _FEATURES_OK = 1, 2, 4, 8
_QUEUE_BYTES: Final = 0x10000
_RINGS: Final = 0x10_0000
"""Where the queues lie in memory, from its beginning."""


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
            base = self._pci.board.ram + _RINGS + queue * _QUEUE_BYTES
            self._write(0x16, queue, 2)
            for offset, place in ((0x20, 0), (0x28, 0x4000), (0x30, 0x8000)):
                self._write(offset, base + place & 0xFFFF_FFFF)
                self._write(offset + 4, base + place >> 32)
            self._write(0x1C, 1, 2)
        self._write(0x14, _ACKNOWLEDGE | _DRIVER | _FEATURES_OK | _DRIVER_OK, 1)
        return Started(offered, self._read(0x14, 1))

    def _find_common(self) -> int:
        for offset in self._pci.capabilities(self.bdf, _VENDOR):
            if self._pci.read(self.bdf, offset + 3, 1) == _COMMON:
                bar = self._pci.read(self.bdf, offset + 4, 1)
                return self._pci.bar(self.bdf, bar) + self._pci.read(self.bdf, offset + 8)
        raise MachineError(f"{self.bdf} is no modern virtio function")

    def _read(self, offset: int, width: Width = 4) -> int:
        return self._pci.qtest.read(self._common + offset, width)

    def _write(self, offset: int, value: int, width: Width = 4) -> None:
        self._pci.qtest.write(self._common + offset, value, width)
