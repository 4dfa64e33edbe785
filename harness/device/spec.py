"""What a device says of itself: base address registers, interrupts, capabilities, doorbells.

Declarations only; nothing here is served. Sizes and offsets are in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.errors import ConfigError
from harness.model.address import AddressRange
from harness.model.pci import Bar, BarKind

Direct = bool | tuple[AddressRange, ...]
"""What of a region a client may map: all of it, nothing, or these areas."""


@dataclass(frozen=True, slots=True)
class BarSpec:
    """One base address register and what VFIO says of its region."""

    index: int
    kind: BarKind
    size: int
    prefetchable: bool = False
    direct: Direct = False

    @property
    def bar(self) -> Bar:
        """Return it as the model of PCI has it; not programmed."""
        return Bar(self.index, self.kind, self.size, self.prefetchable)

    @property
    def is_direct(self) -> bool:
        """Say whether any of it can be mapped."""
        return bool(self.direct)


@dataclass(frozen=True, slots=True)
class MsixSpec:
    """MSI-X (PCIe 6.0, 7.7.2): table and pending bits inside BARs."""

    vectors: int
    table_bar: int = 0
    table_offset: int = 0
    pba_bar: int = 0
    pba_offset: int = 0x800
    at: int | None = None
    """Offset of the capability; None: the next free place."""
    mappable: bool = False
    """The region of the table says that the table may be mapped
    (VFIO_REGION_INFO_CAP_MSIX_MAPPABLE)."""


@dataclass(frozen=True, slots=True)
class MsiSpec:
    """MSI (PCIe 6.0, 7.7.1)."""

    vectors: int = 1
    is_64bit: bool = True
    maskable: bool = False
    at: int | None = None


@dataclass(frozen=True, slots=True)
class ExpressSpec:
    """PCI Express capability, version 2 (PCIe 6.0, 7.5.3)."""

    device_type: int = 0
    """0: endpoint, 1: legacy endpoint, 9: integrated endpoint."""
    flr: bool = False
    """Resets when bit 15 of Device Control is set."""
    at: int | None = None


@dataclass(frozen=True, slots=True)
class PowerSpec:
    """Power management, version 3 (PCIe 6.0, 7.5.2)."""

    soft_reset: bool = False
    """Leaving D3hot resets it (No_Soft_Reset clear)."""
    at: int | None = None


@dataclass(frozen=True, slots=True)
class AerSpec:
    """Advanced error reporting (PCIe 6.0, 7.8.4); defaults as the specification has them."""

    uncorrectable_mask: int = 0
    uncorrectable_severity: int = 0x0006_2030
    correctable_mask: int = 0x0000_2000
    at: int | None = None


@dataclass(frozen=True, slots=True)
class RawCapability:
    """Any other capability: id and body, ``writable`` a mask of the body's writable bits."""

    id: int
    body: bytes
    """What follows id and next pointer (2 bytes), or the extended header (4 bytes)."""
    writable: bytes = b""
    extended: bool = False
    version: int = 1
    """Of an extended capability."""
    at: int | None = None


@dataclass(frozen=True, slots=True)
class IoEventSpec:
    """A register whose writes a client may signal by eventfd instead of by message."""

    bar: int
    offset: int
    width: Literal[1, 2, 4, 8] = 4
    datamatch: int | None = None
    """Only writes of this value."""


def check_bars(bars: tuple[BarSpec, ...]) -> None:
    """Check that the registers can exist beside each other.

    What is only wrong (an odd size, a 64-bit register without room for its upper half) is for
    the peer to refuse.

    :raise ConfigError: two share an index, or one is outside the header.
    """
    used: set[int] = set()
    for bar in bars:
        indices = {bar.index, bar.index + 1} if bar.kind is BarKind.MEM64 else {bar.index}
        if not 0 <= bar.index <= 5 or bar.size < 0:
            raise ConfigError(f"BAR {bar.index} ({bar.kind.value}, {bar.size:#x}) cannot exist")
        if indices & used:
            raise ConfigError(f"BAR {bar.index}: its index is taken")
        used |= indices
