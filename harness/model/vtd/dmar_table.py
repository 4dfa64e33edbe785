"""The ACPI DMAR table: which IOMMU serves which device (VT-d specification, chapter 8)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from harness.model.address import AddressRange


class ScopeType(enum.IntEnum):
    """Sort of a device scope entry (8.3.1)."""

    ENDPOINT = 1
    BRIDGE = 2
    IOAPIC = 3
    HPET = 4
    NAMESPACE = 5


@dataclass(frozen=True, slots=True)
class DeviceScope:
    """One device, or a bridge with all below it."""

    type: int
    """A `ScopeType`, or a number that is not known."""
    enumeration: int
    """Id of the I/O APIC, HPET or namespace device; 0 for PCI."""
    bus: int
    """Bus on which the path starts."""
    path: tuple[tuple[int, int], ...]
    """(device, function) from the start bus down; one pair: on that bus itself."""


@dataclass(frozen=True, slots=True)
class Drhd:
    """A remapping unit (8.3)."""

    segment: int
    base: int
    """Physical address of its registers."""
    include_all: bool
    """It serves every device of the segment that no other unit names."""
    scopes: tuple[DeviceScope, ...] = ()


@dataclass(frozen=True, slots=True)
class Rmrr:
    """Memory that devices use from boot on (8.4)."""

    segment: int
    range: AddressRange
    scopes: tuple[DeviceScope, ...] = ()


@dataclass(frozen=True, slots=True)
class Atsr:
    """Root ports below which devices may use ATS (8.5)."""

    segment: int
    all_ports: bool
    scopes: tuple[DeviceScope, ...] = ()


@dataclass(frozen=True, slots=True)
class Rhsa:
    """NUMA node of a remapping unit (8.6)."""

    base: int
    proximity: int


@dataclass(frozen=True, slots=True)
class Andd:
    """An ACPI namespace device behind a unit (8.7)."""

    number: int
    name: str


@dataclass(frozen=True, slots=True)
class Satc:
    """Integrated devices with their own address translation cache (8.8)."""

    segment: int
    required: bool
    scopes: tuple[DeviceScope, ...] = ()


@dataclass(frozen=True, slots=True)
class OtherStructure:
    """A structure of a type that is not known here, kept as bytes (header included)."""

    type: int
    data: bytes


Structure = Drhd | Rmrr | Atsr | Rhsa | Andd | Satc | OtherStructure


@dataclass(frozen=True, slots=True)
class DmarTable:
    """The whole table (8.1)."""

    address_width: int
    """Host address width in bits (the byte in the table holds one less)."""
    flags: int
    structures: tuple[Structure, ...] = ()

    @property
    def interrupt_remapping(self) -> bool:
        """Flags bit 0: the platform supports interrupt remapping."""
        return bool(self.flags & 1)

    @property
    def x2apic_opt_out(self) -> bool:
        """Flags bit 1: firmware asks not to use x2APIC."""
        return bool(self.flags & 2)

    @property
    def dma_opt_in(self) -> bool:
        """Flags bit 2: firmware asks for DMA protection from boot on."""
        return bool(self.flags & 4)

    @property
    def units(self) -> tuple[Drhd, ...]:
        """The remapping units."""
        return tuple(item for item in self.structures if isinstance(item, Drhd))

    @property
    def reserved_memory(self) -> tuple[Rmrr, ...]:
        """The reserved memory regions."""
        return tuple(item for item in self.structures if isinstance(item, Rmrr))

    @property
    def ats_ports(self) -> tuple[Atsr, ...]:
        """The ATS structures; QEMU writes one iff ``device-iotlb=on`` (VTD-54)."""
        return tuple(item for item in self.structures if isinstance(item, Atsr))
