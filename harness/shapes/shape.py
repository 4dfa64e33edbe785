"""A shape: a device that could exist, and what firmware does with it.

Addresses in a shape are relative: each shape is given areas of its own below 4 GiB, above it
and among the ports (`harness.shapes.areas`), so that many can sit in one machine.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from harness.model.address import AddressRange
from harness.model.pci import Bar, BarKind, PciId

PAGE = 4096
LOW_ROOM = 0xB000_0000
"""Bytes that BARs can have below 4 GiB, the largest of 1 GiB."""
ANONYMOUS = PciId(0x1234, 0x5A5A)
"""An id that no quirk knows."""


@dataclass(frozen=True, slots=True)
class ShapeBar:
    """A BAR, and what VFIO says of its region."""

    index: int
    kind: BarKind
    size: int
    prefetchable: bool = False
    direct: bool | tuple[AddressRange, ...] = True
    """What may be mapped: all of it, nothing, or these areas."""

    @property
    def bar(self) -> Bar:
        """Return it as the model of PCI has it."""
        return Bar(self.index, self.kind, self.size, self.prefetchable)


@dataclass(frozen=True, slots=True)
class ShapeMsix:
    """MSI-X: where table and pending bits are."""

    vectors: int
    table_bar: int
    table_offset: int
    pba_bar: int
    pba_offset: int
    mappable: bool = False
    """The server allows the table to be mapped with the rest (region capability 3)."""

    @property
    def table(self) -> AddressRange:
        """Return the bytes of the table inside its BAR."""
        return AddressRange(self.table_offset, 16 * self.vectors)

    @property
    def pba(self) -> AddressRange:
        """Return the bytes of the pending bits inside their BAR."""
        return AddressRange(self.pba_offset, 8 * ((self.vectors + 63) // 64))


class Place(enum.StrEnum):
    """Where in the machine the device sits."""

    ROOT = "root"
    """On the root bus, ``pcie.0``."""
    PORT = "port"
    """Behind a PCI Express root port."""
    BRIDGE = "bridge"
    """Behind a conventional PCI bridge."""


@dataclass(frozen=True, slots=True)
class Put:
    """Write BAR *bar* so that it decodes at *at* in the shape's area."""

    bar: int
    at: int
    """Offset in the area; bits below the size are dropped by the device."""
    high: bool = False
    """In the area above 4 GiB; only for 64-bit BARs."""
    high_first: bool = False
    """The upper half is written first."""


@dataclass(frozen=True, slots=True)
class Decode:
    """Write the memory and I/O enable bits of the command register."""

    memory: bool
    ports: bool


@dataclass(frozen=True, slots=True)
class SizeBars:
    """Write ones to each BAR and what was there before, as who asks for sizes does."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Write the memory and I/O enable bits of the bridge above."""

    memory: bool
    ports: bool


@dataclass(frozen=True, slots=True)
class Rom:
    """Write the expansion ROM's address, below 4 GiB, and its enable bit."""

    at: int
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Power:
    """Write the power state: D0, or D3hot, in which nothing decodes (QEMU 10.0)."""

    on: bool


Action = Put | Decode | SizeBars | Gate | Rom | Power
Step = tuple[Action, ...]
"""What is done before the map is read once."""


@dataclass(frozen=True, slots=True)
class Gates:
    """What a bridge passes on, relative to the areas; None: the whole area."""

    low: AddressRange | None = None
    """Below 4 GiB; whole MiB."""
    high: AddressRange | None = None
    """Above 4 GiB; whole MiB."""
    ports: AddressRange | None = None
    """Whole 4 KiB."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A device and what is done with it. Values, written to a file and read back."""

    bars: tuple[ShapeBar, ...] = ()
    msix: ShapeMsix | None = None
    id: PciId = ANONYMOUS
    class_code: int = 0xFF0000
    express: bool = True
    """It has the PCI Express capability and 4096 bytes of configuration space."""
    msi: int = 0
    """Vectors of MSI; 0: none."""
    power: bool = False
    """It has power management."""
    rom_size: int = 0
    place: Place = Place.ROOT
    gates: Gates = Gates()
    steps: tuple[Step, ...] = ()
    """The map is read after each; none: what `firmware_steps` says."""

    def bar(self, index: int) -> ShapeBar | None:
        """Return BAR *index*, None if it has none."""
        return next((bar for bar in self.bars if bar.index == index), None)

    @property
    def all_steps(self) -> tuple[Step, ...]:
        """Return the steps that are done."""
        return self.steps or (firmware_step(self),)

    def actions(self) -> Iterator[Action]:
        """Return every action, in order."""
        for step in self.all_steps:
            yield from step


def firmware_step(shape: Shape) -> Step:
    """Return what simple firmware does: each BAR at the next free place, then decoding on.

    64-bit BARs that are prefetchable or of 1 GiB and more go above 4 GiB. What finds no room
    below is left alone.
    """
    free = {"low": 0, "high": 0, "ports": 0}
    puts: list[Action] = []
    for bar in sorted(shape.bars, key=lambda bar: (-bar.size, bar.index)):
        area = area_of(bar)
        at = -(-free[area] // bar.size) * bar.size
        if area == "low" and at + bar.size > LOW_ROOM:
            continue
        free[area] = at + bar.size
        puts.append(Put(bar.index, at, high=area == "high"))
    if shape.rom_size:
        at = -(-free["low"] // shape.rom_size) * shape.rom_size
        puts.append(Rom(at))
    return (*puts, Decode(memory=True, ports=True))


def area_of(bar: ShapeBar) -> str:
    """Say where firmware puts a BAR: ``low``, ``high`` or ``ports``."""
    if bar.kind is BarKind.IO:
        return "ports"
    roomy = bar.kind is BarKind.MEM64 and (bar.prefetchable or bar.size >= 1 << 30)
    return "high" if roomy else "low"
