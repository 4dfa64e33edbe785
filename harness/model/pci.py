"""PCI functions as values: names, identities, BARs, capabilities."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from harness.model.address import AddressRange

_BDF = re.compile(r"(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])")
_ID = re.compile(r"(?:0x)?([0-9a-fA-F]{4}):(?:0x)?([0-9a-fA-F]{4})")


@dataclass(frozen=True, slots=True, order=True)
class Bdf:
    """Domain, bus, device, function; printed ``0000:3b:00.1``."""

    domain: int
    bus: int
    device: int
    function: int

    @classmethod
    def parse(cls, text: str) -> Bdf:
        """Read ``0000:3b:00.1`` or ``3b:00.1`` (domain 0).

        :raise ValueError: the text is not such an address.
        """
        match = _BDF.fullmatch(text.strip())
        if match is None or int(match[3], 16) > 31:
            raise ValueError(f"not a PCI address (expected like 0000:3b:00.1): {text!r}")
        return cls(int(match[1] or "0", 16), int(match[2], 16), int(match[3], 16), int(match[4]))

    @property
    def slot(self) -> str:
        """``DD.F``, the part QEMU's VT-d uses in names such as ``vtd-00.0``."""
        return f"{self.device:02x}.{self.function}"

    @property
    def source_id(self) -> int:
        """Requester id as the IOMMU sees it: bus, device, function in 16 bits."""
        return self.bus << 8 | self.device << 3 | self.function

    def __str__(self) -> str:
        return f"{self.domain:04x}:{self.bus:02x}:{self.slot}"


@dataclass(frozen=True, slots=True, order=True)
class PciId:
    """Vendor and device id; printed ``8086:37c9``."""

    vendor: int
    device: int

    @classmethod
    def parse(cls, text: str) -> PciId:
        """Read ``8086:37c9``.

        :raise ValueError: the text is not such a pair.
        """
        match = _ID.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"not a PCI id (expected like 8086:37c9): {text!r}")
        return cls(int(match[1], 16), int(match[2], 16))

    def __str__(self) -> str:
        return f"{self.vendor:04x}:{self.device:04x}"


class BarKind(enum.Enum):
    """What a base address register decodes."""

    MEM32 = "mem32"
    MEM64 = "mem64"
    IO = "io"


@dataclass(frozen=True, slots=True)
class Bar:
    """One base address register."""

    index: int
    """0 to 5."""
    kind: BarKind
    size: int
    """Bytes, a power of two."""
    prefetchable: bool = False
    address: int | None = None
    """Where it decodes now, as seen by whoever read it; None if not programmed."""

    @property
    def is_memory(self) -> bool:
        """Say whether it decodes memory, not ports."""
        return self.kind is not BarKind.IO

    @property
    def range(self) -> AddressRange:
        """Where it decodes now.

        :raise ValueError: it is not programmed.
        """
        if self.address is None:
            raise ValueError(f"BAR {self.index} is not programmed")
        return AddressRange(self.address, self.size)


@dataclass(frozen=True, slots=True)
class MsixCapability:
    """MSI-X capability (PCIe 6.0, 7.7.2)."""

    offset: int
    """Of the capability in configuration space."""
    vectors: int
    """Table entries: message control bits 10:0 plus one."""
    table_bar: int
    table_offset: int
    pba_bar: int
    pba_offset: int
    enabled: bool = False

    @property
    def table(self) -> AddressRange:
        """Bytes of the vector table inside its BAR: 16 per entry."""
        return AddressRange(self.table_offset, 16 * self.vectors)

    @property
    def pba(self) -> AddressRange:
        """Bytes of the pending bit array inside its BAR: 8 per 64 vectors."""
        return AddressRange(self.pba_offset, 8 * ((self.vectors + 63) // 64))


@dataclass(frozen=True, slots=True)
class MsiCapability:
    """MSI capability (PCI 3.0, 6.8.1)."""

    offset: int
    """Of the capability in configuration space."""
    vectors: int
    """Vectors it can ask for: a power of two up to 32."""
    is_64bit: bool = False
    maskable: bool = False
    """Has per-vector mask bits."""
    enabled: bool = False


@dataclass(frozen=True, slots=True)
class Capability:
    """One entry of the capability list (``extended``: of the list that starts at 0x100)."""

    id: int
    offset: int
    extended: bool = False


@dataclass(frozen=True, slots=True)
class PciFunction:
    """A PCI function as its host sees it."""

    bdf: Bdf
    id: PciId
    class_code: int
    """24 bits: class, subclass, programming interface."""
    bars: tuple[Bar, ...] = ()
    msix: MsixCapability | None = None
    capabilities: tuple[Capability, ...] = ()
    rom_size: int = 0
    interrupt_pin: int = 0
    """0: none, 1 to 4: A to D."""
    driver: str | None = None
    iommu_group: int | None = None
    revision: int = 0
    config: bytes = b""
    """Configuration space as read: 64, 256 or 4096 bytes."""
    msi: MsiCapability | None = None
    vf_bars: tuple[Bar, ...] = ()
    """BARs of the virtual functions of a physical one; ``size`` is that of one of them."""

    def bar(self, index: int) -> Bar:
        """Return BAR *index*.

        :raise KeyError: the function has no such BAR.
        """
        for bar in self.bars:
            if bar.index == index:
                return bar
        raise KeyError(f"{self.bdf} has no BAR {index}")

    def has_capability(self, cap_id: int, *, extended: bool = False) -> bool:
        """Say whether a capability with this id is listed."""
        return any(c.id == cap_id and c.extended == extended for c in self.capabilities)

    @property
    def is_express(self) -> bool:
        """Say whether it has the PCI Express capability (id 0x10)."""
        return self.has_capability(0x10)

    @property
    def config_size(self) -> int:
        """Bytes of configuration space it has: 4096 or 256 (Linux ``pci_cfg_space_size()``).

        What was read tells, if all of it was; a short read leaves the PCI Express capability.
        """
        if len(self.config) in (256, 4096):
            return len(self.config)
        return 4096 if self.is_express else 256

    @property
    def is_vga(self) -> bool:
        """Say whether it is a VGA compatible controller (class 0300)."""
        return self.class_code >> 8 == 0x0300
