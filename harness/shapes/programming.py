"""What is written to configuration space for each action, and what then decodes.

`Programmer` turns actions into writes and keeps books of what they lead to, the way QEMU does
(``pci_default_write_config()``, ``pci_update_mappings()``, ``pci_bar_address()`` in
``hw/pci/pci.c``; ``vfio_pci_write_config()`` in ``hw/vfio/pci.c``). It never looks at a machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.model.address import AddressRange
from harness.model.expectation import ROM_BAR, Space
from harness.model.pci import BarKind
from harness.shapes.areas import Areas
from harness.shapes.shape import (
    PAGE,
    Action,
    Decode,
    Gate,
    Place,
    Power,
    Put,
    Rom,
    Shape,
    ShapeBar,
    SizeBars,
)

COMMAND: Final = 0x04
FIRST_BAR: Final = 0x10
END_OF_BARS: Final = 0x28
ROM_REGISTER: Final = 0x30
POWER: Final = 0x40
"""Where shapes have the power management capability."""
POWER_STATE: Final = POWER + 4
_ONES: Final = 0xFFFF_FFFF
_MEMORY, _PORTS = 2, 1


@dataclass(frozen=True, slots=True)
class Write:
    """One write to configuration space."""

    offset: int
    value: int
    width: int = 4
    bridge: bool = False
    """To the bridge above, not to the device."""


@dataclass(slots=True)
class Decoding:
    """What of a device decodes: QEMU's books, from the writes alone."""

    bars: Sequence[ShapeBar]
    rom_size: int = 0
    command: int = 0
    places: dict[int, int] = field(default_factory=dict)
    """Address by BAR (6: the ROM), in the order in which they came there."""
    grown: set[int] = field(default_factory=set)
    """BARs below a page that have been on a page boundary."""
    registers: dict[int, int] = field(default_factory=dict)
    """Value of each 32-bit register."""
    asleep: bool = False
    """In D3hot."""
    filling: set[int] = field(default_factory=set)
    """BARs below a page that filled one when vfio last looked."""
    by_power: dict[int, bool] = field(default_factory=dict)
    """BARs below a page that came to decode by the power state: whether they fill a page."""

    def write(self, write: Write) -> None:
        """Take a write to the device."""
        if write.offset == POWER_STATE:
            self._sleep(write.value & 3 == 3)
            return
        if write.offset == COMMAND:
            self.command = write.value
        else:
            self.registers[write.offset] = write.value
        # The upper half of a 64-bit BAR in the last slot is outside the BARs: nobody looks.
        looks = FIRST_BAR <= write.offset < END_OF_BARS or write.offset in (COMMAND, ROM_REGISTER)
        if looks:
            self._update()

    def _update(self) -> None:
        """Follow ``pci_update_mappings()`` and, after it, the pages that are filled."""
        for bar in sorted(self.bars, key=lambda bar: bar.index):
            if self._move(bar.index, self._address(bar)) and bar.size < PAGE:
                self._fill(bar.index)
        if self.rom_size:
            self._move(ROM_BAR, self._rom_address())

    def _fill(self, index: int) -> None:
        """Follow ``vfio_sub_page_bar_update_mapping()``."""
        address = self.places.get(index)
        self.by_power.pop(index, None)
        self.filling.discard(index)
        if address is not None and address % PAGE == 0:
            self.filling.add(index)
            self.grown.add(index)

    def _sleep(self, asleep: bool) -> None:
        """Follow ``pci_pm_update()``: the BARs come and go, and vfio does not look."""
        if asleep == self.asleep:
            return
        self.asleep = asleep
        for bar in sorted(self.bars, key=lambda bar: bar.index):
            if self._move(bar.index, self._address(bar)) and bar.size < PAGE:
                self.by_power.pop(bar.index, None)
                if bar.index in self.places:
                    self.by_power[bar.index] = bar.index in self.filling
        if self.rom_size:
            self._move(ROM_BAR, self._rom_address())

    def _move(self, index: int, address: int | None) -> bool:
        if address == self.places.get(index):
            return False
        self.places.pop(index, None)
        if address is not None:
            self.places[index] = address
        return True

    def _address(self, bar: ShapeBar) -> int | None:
        """Follow ``pci_bar_address()``."""
        at = FIRST_BAR + 4 * bar.index
        value = self.registers.get(at, 0)
        if bar.kind is BarKind.MEM64:
            value |= self.registers.get(at + 4, 0) << 32
        address = value & -bar.size
        if bar.kind is not BarKind.MEM64:
            address &= _ONES
        last = address + bar.size - 1
        wanted = _PORTS if bar.kind is BarKind.IO else _MEMORY
        if self.asleep or not self.command & wanted or address == 0:
            return None
        if bar.kind is not BarKind.MEM64 and last >= _ONES:
            return None
        return None if last >= (1 << 64) - 1 else address

    def _rom_address(self) -> int | None:
        value = self.registers.get(ROM_REGISTER, 0)
        address = value & -self.rom_size & _ONES
        if self.asleep or not (self.command & _MEMORY and value & 1) or address == 0:
            return None
        return None if address + self.rom_size - 1 >= _ONES else address


class Programmer:
    """Does the actions of one shape in its areas."""

    def __init__(self, shape: Shape, areas: Areas) -> None:
        self.shape = shape
        self.areas = areas
        self.decoding = Decoding(shape.bars, shape.rom_size)
        self._gate = _MEMORY | _PORTS

    def writes(self, action: Action) -> tuple[Write, ...]:
        """Return the writes that *action* is, and take note of what they lead to."""
        writes = tuple(self._writes(action))
        for write in writes:
            if not write.bridge:
                self.decoding.write(write)
        return writes

    @property
    def let_through(self) -> dict[Space, tuple[AddressRange, ...]] | None:
        """Return what the bridge above passes on now, None without one."""
        if self.shape.place is Place.ROOT:
            return None
        low, high, ports = gates_of(self.shape, self.areas)
        memory, has_ports = self._gate & _MEMORY, self._gate & _PORTS
        return {
            Space.MEMORY: (low, high) if memory else (),
            Space.PORTS: (ports,) if has_ports else (),
        }

    def _writes(self, action: Action) -> Iterator[Write]:
        match action:
            case Put():
                yield from self._put(action)
            case Decode():
                yield Write(COMMAND, _command(action.memory, action.ports), 2)
            case SizeBars():
                yield from self._size_bars()
            case Rom():
                yield Write(ROM_REGISTER, self.areas.low.start + action.at | action.enabled)
            case Power():
                if self.shape.power:
                    yield Write(POWER_STATE, 0 if action.on else 3, 2)
            case Gate():
                self._gate = _command(action.memory, action.ports)
                if self.shape.place is not Place.ROOT:
                    yield Write(COMMAND, self._gate, 2, bridge=True)

    def _put(self, put: Put) -> Iterator[Write]:
        bar = self.shape.bar(put.bar)
        if bar is None:
            return
        at = FIRST_BAR + 4 * bar.index
        if bar.kind is BarKind.IO:
            yield Write(at, self.areas.ports.start + put.at)
            return
        address = (self.areas.high if put.high else self.areas.low).start + put.at
        halves = [Write(at, address & _ONES)]
        if bar.kind is BarKind.MEM64:
            halves.append(Write(at + 4, address >> 32))
        yield from reversed(halves) if put.high_first else halves

    def _size_bars(self) -> Iterator[Write]:
        """Firmware's way: ones into each register, and back what was there."""
        for bar in sorted(self.shape.bars, key=lambda bar: bar.index):
            at = FIRST_BAR + 4 * bar.index
            for offset in (at, at + 4) if bar.kind is BarKind.MEM64 else (at,):
                before = self.decoding.registers.get(offset, 0)
                yield Write(offset, _ONES)
                yield Write(offset, before)


def _command(memory: bool, ports: bool) -> int:
    return memory * _MEMORY | ports * _PORTS


def gates_of(shape: Shape, areas: Areas) -> tuple[AddressRange, AddressRange, AddressRange]:
    """Return what the bridge above *shape* is programmed to pass on: low, high, ports."""
    gates = shape.gates
    pairs = ((gates.low, areas.low), (gates.high, areas.high), (gates.ports, areas.ports))
    low, high, ports = (
        area if gate is None else (gate.shifted(area.start).intersection(area) or area)
        for gate, area in pairs
    )
    return low, high, ports


def bridge_writes(shape: Shape, areas: Areas, bus: int) -> tuple[Write, ...]:
    """Return the writes that give the bridge above *shape* bus *bus* and its windows."""
    low, high, ports = gates_of(shape, areas)
    io = (ports.start >> 8 & 0xF0) | (ports.last & 0xF000)
    writes = (
        Write(0x18, bus << 16 | bus << 8),
        Write(0x1C, io, 2),
        Write(0x20, (low.start >> 16 & 0xFFF0) | (low.last & 0xFFF0_0000)),
        Write(0x24, (high.start >> 16 & 0xFFF0) | (high.last & 0xFFF0_0000)),
        Write(0x28, high.start >> 32),
        Write(0x2C, high.last >> 32),
        Write(0x30, 0),
        Write(COMMAND, _MEMORY | _PORTS, 2),
    )
    return tuple(Write(w.offset, w.value, w.width, bridge=True) for w in writes)
