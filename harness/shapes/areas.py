"""Where shapes go in one machine: each has areas of its own, so that none disturbs another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harness.model.address import AddressRange
from harness.model.pci import BarKind
from harness.shapes.shape import PAGE, Place, Put, Rom, Shape

LOW: Final = AddressRange.of(0x1000_0000, 0xF000_0000)
"""Below 4 GiB: above the memory of the machine, below what firmware and chipset use."""
HIGH: Final = AddressRange.of(1 << 40, 1 << 47)
PORTS: Final = AddressRange.of(0x1000, 0xF000)

_LEAST_LOW: Final = 1 << 20
"""A bridge passes on whole MiB."""
_LEAST_PORTS: Final = 0x1000
"""And whole 4 KiB of ports."""


@dataclass(frozen=True, slots=True)
class Areas:
    """The areas of one shape; each begins at a multiple of every BAR that goes there."""

    low: AddressRange
    high: AddressRange
    ports: AddressRange


class NoRoom(ValueError):
    """The shapes do not fit into one machine together."""


def place_shapes(shapes: Sequence[Shape]) -> tuple[Areas, ...]:
    """Give each shape its areas.

    :raise NoRoom: they do not fit.
    """
    wanted = [_wanted(shape) for shape in shapes]
    found = [
        _pack([need[i] for need in wanted], area) for i, area in enumerate((LOW, HIGH, PORTS))
    ]
    return tuple(Areas(*areas) for areas in zip(*found, strict=True))


def how_many_fit(shapes: Sequence[Shape], most: int) -> int:
    """Return how many of the first *shapes* fit into one machine, at least one, *most* at most."""
    count = 1
    while count < min(most, len(shapes)):
        try:
            place_shapes(shapes[: count + 1])
        except NoRoom:
            break
        count += 1
    return count


@dataclass(slots=True)
class _Need:
    size: int
    align: int

    def hold(self, start: int, size: int) -> None:
        # A BAR below a page may leave a container of a page's length behind it (MAP-39).
        self.size = max(self.size, start + max(size, PAGE))
        self.align = max(self.align, 1 << (size - 1).bit_length())


def _wanted(shape: Shape) -> tuple[_Need, _Need, _Need]:
    """Return what a shape needs of each area."""
    low, high = _Need(_LEAST_LOW, _LEAST_LOW), _Need(_LEAST_LOW, _LEAST_LOW)
    ports = _Need(_LEAST_PORTS, _LEAST_PORTS)
    if shape.place is Place.ROOT and not any(bar.kind is BarKind.IO for bar in shape.bars):
        ports = _Need(1, 1)
    for action in shape.actions():
        if isinstance(action, Rom):
            low.hold(action.at, max(shape.rom_size, 1))
        if not isinstance(action, Put) or (bar := shape.bar(action.bar)) is None:
            continue
        need = ports if bar.kind is BarKind.IO else high if action.high else low
        need.hold(action.at, max(bar.size, 1))
    for need, unit in ((low, _LEAST_LOW), (high, _LEAST_LOW), (ports, _LEAST_PORTS)):
        if need.size > 1:
            need.size = -(-need.size // unit) * unit
    return low, high, ports


def _pack(needs: Sequence[_Need], area: AddressRange) -> list[AddressRange]:
    """Return a place for each need, those with large BARs first."""
    places: dict[int, AddressRange] = {}
    at = area.start
    for i in sorted(range(len(needs)), key=lambda i: (-needs[i].align, -needs[i].size, i)):
        need = needs[i]
        at = -(-at // need.align) * need.align
        if at + need.size > area.end:
            raise NoRoom(f"{need.size:#x} more bytes do not fit into {area}")
        places[i] = AddressRange(at, need.size)
        at += need.size
    return [places[i] for i in range(len(needs))]
