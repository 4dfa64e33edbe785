"""Where shapes go in one machine: each has areas of its own, so that none disturbs another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from harness.model.address import AddressRange
from harness.model.pci import BarKind
from harness.shapes.shape import Place, Put, Rom, Shape

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
    """The areas of one shape; each begins at a multiple of its size, a power of two."""

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
        _pack([sizes[i] for sizes in wanted], area) for i, area in enumerate((LOW, HIGH, PORTS))
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


def _wanted(shape: Shape) -> tuple[int, int, int]:
    """Return the sizes of the areas that a shape needs."""
    low, high, ports = _LEAST_LOW, _LEAST_LOW, _LEAST_PORTS
    for action in shape.actions():
        if isinstance(action, Rom):
            low = max(low, action.at + shape.rom_size)
        if not isinstance(action, Put):
            continue
        bar = shape.bar(action.bar)
        if bar is None:
            continue
        end = action.at + max(bar.size, 1)
        if bar.kind is BarKind.IO:
            ports = max(ports, end)
        elif action.high:
            high = max(high, end)
        else:
            low = max(low, end)
    if shape.place is Place.ROOT and not any(bar.kind is BarKind.IO for bar in shape.bars):
        ports = 1
    return _power(low), _power(high), _power(ports)


def _power(size: int) -> int:
    return 1 << (size - 1).bit_length()


def _pack(sizes: Sequence[int], area: AddressRange) -> list[AddressRange]:
    """Return a place for each size, the large ones first."""
    places: dict[int, AddressRange] = {}
    at = area.start
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        at = -(-at // sizes[i]) * sizes[i]
        if at + sizes[i] > area.end:
            raise NoRoom(f"{sizes[i]:#x} more bytes do not fit into {area}")
        places[i] = AddressRange(at, sizes[i])
        at += sizes[i]
    return [places[i] for i in range(len(sizes))]
