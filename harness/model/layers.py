"""Memory regions stacked inside a window, and what shows of them.

QEMU renders the same way (``render_memory_region()`` in ``system/memory.c``): a region shows
where none above it does, and the pieces of one region stay apart where another one cuts it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from harness.model.address import AddressRange
from harness.model.memory_map import Kind


@dataclass(frozen=True, slots=True)
class Layer:
    """A memory region inside a BAR."""

    range: AddressRange
    """Inside the BAR."""
    kind: Kind
    name: str
    rule: str
    """Id of the rule that puts it there."""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a layer that nothing hides."""

    range: AddressRange
    layer: Layer

    @property
    def offset(self) -> int:
        """Of the piece inside its layer."""
        return self.range.start - self.layer.range.start


def paint(window: AddressRange, layers: tuple[Layer, ...]) -> tuple[Piece, ...]:
    """Return what shows of *layers* (bottom first) in *window*, lowest first."""
    clipped = [(layer, layer.range.intersection(window)) for layer in layers]
    visible = [(layer, part) for layer, part in clipped if part is not None]
    edges = sorted({edge for _, part in visible for edge in (part.start, part.end)})
    pieces: list[Piece] = []
    for start, end in pairwise(edges):
        top = next((layer for layer, part in reversed(visible) if start in part), None)
        if top is None:
            continue
        if pieces and pieces[-1].layer is top and pieces[-1].range.end == start:
            start = pieces.pop().range.start
        pieces.append(Piece(AddressRange.of(start, end), top))
    return tuple(pieces)
