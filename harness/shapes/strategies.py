"""Shapes as hypothesis makes them: legal ones, and ones that are just not.

Whether a shape is legal the oracle says, never the strategy. The strategies only see to it that
what matters happens often: tables across pages and at the ends of BARs, BARs below a page and
two of them in one, areas that touch, places that overlap, bridges that cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

from hypothesis import strategies as st

from harness.model.address import AddressRange
from harness.model.pci import BarKind, PciId
from harness.shapes.draws import Draw
from harness.shapes.shape import (
    ANONYMOUS,
    PAGE,
    Action,
    Decode,
    Gate,
    Gates,
    Place,
    Power,
    Put,
    Rom,
    Shape,
    ShapeBar,
    ShapeMsix,
    SizeBars,
    Step,
)

MIB: Final = 1 << 20
GIB: Final = 1 << 30
CHELSIO_VF: Final = PciId(0x1425, 0x5801)
KUNLUN_VF: Final = PciId(0x1D22, 0x3685)

IDS: Final = (
    (ANONYMOUS, 0xFF0000),
    (PciId(0x10DE, 0x1B80), 0x030000),  # NVIDIA: quirks in BARs 0 and 5
    (PciId(0x1002, 0x6819), 0x030000),  # ATI: in BARs 2 and 4
    (PciId(0x10EC, 0x8168), 0x020000),  # RTL8168: in BAR 2
    (PciId(0x8086, 0x4680), 0x030000),  # Intel graphics: in BAR 0
    (CHELSIO_VF, 0x020000),  # a PBA that QEMU corrects
    (KUNLUN_VF, 0x120000),
    (PciId(0x8086, 0x37C9), 0x0B4000),  # QAT C62x VF
    (PciId(0x1B36, 0x0010), 0x010802),  # NVMe
)
VECTORS: Final = (1, 2, 3, 4, 8, 15, 16, 17, 63, 64, 65, 128, 129, 255, 256, 257, 512, 1024, 2048)
_LAST_OFFSET: Final = 0xFFFF_0000
"""Table and PBA are found by offsets of 32 bits."""
_LEAST_MSIX: Final = 32
"""Bytes that a BAR has room for table and PBA of one vector in."""
_LAST_SLOT: Final = 5
_KINDS: Final = (None, None, BarKind.MEM32, BarKind.MEM64, BarKind.MEM64, BarKind.IO)
_MEMORY_BITS: Final = (*range(4, 12), *range(4, 12), *range(12, 18), *range(12, 18))
_LARGE_BITS: Final = (20, 21, 24, 27, 29, 30)
_HUGE_BITS: Final = (31, 32, 34, 36, 40)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Return any shape."""
    return any_shape(Draw(draw))


def any_shape(draw: Draw) -> Shape:
    """Return a shape: nine of ten legal, unless chance has it otherwise."""
    shape = legal_shape(draw)
    if draw.one_in(10):
        shape = draw.pick(SPOILERS)(draw, shape)
    return shape


def legal_shape(draw: Draw) -> Shape:
    """Return a shape that specification and QEMU allow."""
    bars = bar_set(draw)
    identity, class_code = draw.pick(IDS) if draw.one_in(4) else IDS[0]
    shape = Shape(
        bars=bars,
        id=identity,
        class_code=class_code,
        express=draw.coin(),
        msi=draw.pick((0, 0, 1, 32)),
        power=draw.coin(),
        rom_size=1 << draw.number(11, 20) if draw.one_in(16) else 0,
        place=draw.pick((Place.ROOT, Place.ROOT, Place.PORT, Place.BRIDGE)),
    )
    if any(bar.size >= _LEAST_MSIX for bar in bars) and draw.coin():
        shape = replace(shape, msix=msix_of(draw, bars))
        shape = _as_the_device_says(shape)
    if shape.place is not Place.ROOT and draw.coin():
        shape = replace(shape, gates=gates(draw))
    if draw.number(0, 2):
        shape = replace(shape, steps=step_list(draw, shape))
    return shape


def bar_set(draw: Draw) -> tuple[ShapeBar, ...]:
    """Return BARs that can be beside each other."""
    bars: list[ShapeBar] = []
    index = 0
    while index < 6:
        kind = draw.pick(_KINDS)
        if kind is BarKind.MEM64 and index == 5 and not draw.one_in(4):
            kind = BarKind.MEM32  # a 64-bit BAR in the last slot is for connoisseurs
        if kind is not None:
            bars.append(one_bar(draw, index, kind))
        index += 2 if kind is BarKind.MEM64 else 1
    return tuple(bars)


def one_bar(draw: Draw, index: int, kind: BarKind) -> ShapeBar:
    """Return BAR *index*."""
    if kind is BarKind.IO:
        size = 1 << draw.number(2, 8)
        return ShapeBar(index, kind, size, direct=draw.one_in(10))
    bits = draw.pick(_MEMORY_BITS)
    if draw.one_in(8):
        more = _HUGE_BITS if kind is BarKind.MEM64 else ()
        bits = draw.pick(_LARGE_BITS + more)
    size = 1 << bits
    prefetchable = kind is BarKind.MEM64 and draw.coin()
    how = draw.number(0, 7)
    if how == 7:
        return ShapeBar(index, kind, size, prefetchable, False)
    direct: bool | tuple[AddressRange, ...] = True
    if how in (5, 6):
        direct = areas(draw, size)
    return ShapeBar(index, kind, size, prefetchable, direct)


def areas(draw: Draw, size: int) -> tuple[AddressRange, ...]:
    """Return areas of a region that may be mapped: apart, adjacent, at the end, of odd size."""
    if size <= PAGE:
        return (AddressRange(0, draw.pick((size, size, max(1, size // 2)))),)
    pages = size // PAGE
    some = {_page(draw, pages) for _ in range(draw.number(2, 8))}
    edges = sorted(some if len(some) > 1 else {0, pages})
    chosen = [
        AddressRange.of(start * PAGE, end * PAGE)
        for start, end in pairwise(edges)
        if not draw.one_in(4)
    ]
    if not chosen:
        chosen = [AddressRange.of(edges[0] * PAGE, edges[1] * PAGE)]
    flaw = draw.number(0, 11)
    if flaw == 11:  # not on a page: mmap() refuses
        first = chosen[0]
        chosen[0] = AddressRange(first.start + 0x200, first.size - 0x200)
    elif flaw == 10:  # ends inside a page
        last = chosen[-1]
        chosen[-1] = AddressRange(last.start, last.size - draw.pick((1, 8, 0x800)))
    elif flaw == 9:
        chosen.reverse()
    return tuple(chosen)


def _page(draw: Draw, pages: int) -> int:
    near = draw.number(0, min(pages, 24))
    return near if draw.coin() else pages - near


def msix_of(draw: Draw, bars: Sequence[ShapeBar]) -> ShapeMsix:
    """Return MSI-X whose table and PBA fit into *bars* if any can."""
    roomy = [bar for bar in bars if bar.size >= _LEAST_MSIX] or list(bars)
    table_bar, pba_bar = draw.pick(roomy), draw.pick(roomy)
    if draw.coin():
        pba_bar = table_bar
    together = table_bar.index == pba_bar.index
    most = max(1, min(2048, table_bar.size // 2 // 16 if together else table_bar.size // 16))
    vectors = min(draw.pick(VECTORS) if draw.coin() else draw.number(1, 2048), most)
    table_size, pba_size = 16 * vectors, 8 * ((vectors + 63) // 64)
    table = offset(draw, table_bar.size - table_size)
    msix = ShapeMsix(vectors, table_bar.index, table, pba_bar.index, 0, mappable=draw.coin())
    pba = offset(draw, pba_bar.size - pba_size)
    if together and msix.table.overlaps(AddressRange(pba, pba_size)):
        # Right behind the table, or right before it.
        pba = table + table_size if msix.table.end + pba_size <= pba_bar.size else 0
    return replace(msix, pba_offset=pba)


def offset(draw: Draw, last: int) -> int:
    """Return the offset of a structure, up to *last*: on pages, across them, at both ends."""
    last = max(0, min(last, _LAST_OFFSET))
    edge = draw.number(0, min(last // PAGE, 16)) * PAGE
    found = edge
    match draw.number(0, 3):
        case 1:
            found = edge + draw.pick((-8, 8, -0x10, 0x10, -0x80, -0x400, 0x800))
        case 2:
            found = draw.number(0, min(last, 8 * PAGE))
        case 3:
            found = draw.pick((last, last - 8, last - 0x800, last // 2))
    return max(0, min(found, last)) & ~7


def _as_the_device_says(shape: Shape) -> Shape:
    """Give the devices whose PBA QEMU corrects the one that they are known to have."""
    wrong = {CHELSIO_VF: 0x8000, KUNLUN_VF: 0x460000}.get(shape.id)
    if wrong is None or shape.msix is None:
        return shape
    return replace(shape, msix=replace(shape.msix, pba_offset=wrong))


def gates(draw: Draw) -> Gates:
    """Return windows of a bridge that may cut what is behind it."""

    def part(unit: int) -> AddressRange | None:
        if draw.coin():
            return None
        start = draw.number(0, 3)
        return AddressRange(start * unit, draw.number(1, 4) * unit)

    return Gates(low=part(MIB), high=part(MIB), ports=part(PAGE))


def step_list(draw: Draw, shape: Shape) -> tuple[Step, ...]:
    """Return what a firmware that is in no hurry does with the BARs of *shape*."""
    first: list[Action] = [put(draw, bar) for bar in draw.shuffled(shape.bars)]
    if shape.rom_size:
        first.append(Rom(draw.number(0, 3) * max(shape.rom_size, PAGE)))
    on = Decode(memory=True, ports=True)
    first.insert(0 if draw.one_in(4) else len(first), on)
    more = [
        tuple(action(draw, shape) for _ in range(draw.number(1, 3)))
        for _ in range(draw.number(0, 4))
    ]
    return (tuple(first), *more)


def action(draw: Draw, shape: Shape) -> Action:
    """Return one thing that firmware does."""
    if shape.bars and draw.coin():
        return put(draw, draw.pick(shape.bars))
    if shape.power and draw.one_in(4):
        return Power(draw.coin())
    match draw.number(0, 3 if shape.place is not Place.ROOT else 2):
        case 0:
            return Decode(memory=True, ports=True)
        case 1:
            return Decode(draw.coin(), draw.coin())
        case 2:
            return SizeBars()
        case _:
            return Gate(draw.coin(), draw.coin())


def put(draw: Draw, bar: ShapeBar) -> Put:
    """Return a place for *bar*: few places, so that BARs meet."""
    high = bar.kind is BarKind.MEM64 and (bar.size >= GIB or draw.coin())
    room = PAGE if bar.kind is BarKind.IO else MIB * 64 if high else GIB // 16
    turns = max(0, min(7, room // bar.size - 1))
    at = draw.number(0, turns) * bar.size
    if bar.size < PAGE and draw.coin():
        at += draw.number(0, 1 if bar.kind is BarKind.IO else 3) * PAGE
    # Nobody looks when the upper half of the last slot is written: low first, and the BAR is
    # somewhere else, among other shapes.
    last = bar.kind is BarKind.MEM64 and bar.index == _LAST_SLOT
    return Put(bar.index, at, high, high_first=last or (high and draw.coin()))


# -- shapes that are just not legal -----------------------------------------------------------

Spoiler = Callable[[Draw, Shape], Shape]


def _with_msix(draw: Draw, shape: Shape) -> Shape:
    if not shape.bars:
        shape = replace(shape, bars=(ShapeBar(0, BarKind.MEM32, 4 * PAGE),))
    if shape.msix is None:
        shape = replace(shape, msix=msix_of(draw, shape.bars))
    return replace(shape, steps=())


def _table_size_at(shape: Shape) -> tuple[ShapeMsix, int, int]:
    """Return MSI-X and the sizes of the BARs of table and PBA."""
    assert shape.msix is not None
    table, pba = shape.bar(shape.msix.table_bar), shape.bar(shape.msix.pba_bar)
    return shape.msix, table.size if table else 0, pba.size if pba else 0


def table_beyond(draw: Draw, shape: Shape) -> Shape:
    """Let the table end behind its BAR, by eight bytes or more."""
    shape = _with_msix(draw, shape)
    msix, size, _ = _table_size_at(shape)
    offset = max(0, size - msix.table.size + draw.pick((8, 0x10, PAGE))) & ~7
    if offset > _LAST_OFFSET:
        return overlap(draw, shape)
    return replace(shape, msix=replace(msix, table_offset=offset))


def pba_outside(draw: Draw, shape: Shape) -> Shape:
    """Let the PBA begin at the end of its BAR or behind it."""
    shape = _with_msix(draw, shape)
    msix, _, size = _table_size_at(shape)
    if size > _LAST_OFFSET:
        return overlap(draw, shape)
    return replace(shape, msix=replace(msix, pba_offset=size + draw.pick((0, 8, PAGE))))


def pba_across_end(draw: Draw, shape: Shape) -> Shape:
    """Let the PBA begin inside its BAR and end outside."""
    shape = _with_msix(draw, shape)
    msix, _, size = _table_size_at(shape)
    vectors = draw.pick((65, 129, 2048))
    if size > _LAST_OFFSET:
        return overlap(draw, shape)
    return replace(shape, msix=replace(msix, vectors=vectors, pba_offset=max(0, size - 8)))


def overlap(draw: Draw, shape: Shape) -> Shape:
    """Lay the PBA over the table."""
    shape = _with_msix(draw, shape)
    msix, _, _ = _table_size_at(shape)
    inside = draw.number(0, msix.table.size - 8) & ~7
    return replace(
        shape,
        msix=replace(msix, pba_bar=msix.table_bar, pba_offset=msix.table_offset + inside),
    )


def wrong_bir(draw: Draw, shape: Shape) -> Shape:
    """Name a BAR that no function has."""
    shape = _with_msix(draw, shape)
    msix, _, _ = _table_size_at(shape)
    bir = draw.number(6, 7)
    wrong = draw.pick(("table_bar", "pba_bar"))
    return replace(
        shape,
        msix=replace(msix, table_bar=bir) if wrong == "table_bar" else replace(msix, pba_bar=bir),
    )


def absent_bar(draw: Draw, shape: Shape) -> Shape:
    """Put table or PBA into a BAR that this function has not."""
    shape = _with_msix(draw, shape)
    msix, _, _ = _table_size_at(shape)
    taken = {bar.index for bar in shape.bars}
    free = [index for index in range(6) if index not in taken]
    if not free:
        return shape
    bar = draw.pick(free)
    # The table is a known finding: seldom.
    table = draw.one_in(8)
    return replace(
        shape, msix=replace(msix, table_bar=bar) if table else replace(msix, pba_bar=bar)
    )


def overlapping_areas(draw: Draw, shape: Shape) -> Shape:
    """Let two areas of a region overlap."""
    size = 1 << draw.number(14, 20)
    pages = size // PAGE
    start = draw.number(0, pages - 3)
    one = AddressRange(start * PAGE, draw.number(2, pages - start) * PAGE)
    two = AddressRange(draw.number(start, one.end // PAGE - 1) * PAGE, draw.number(1, 2) * PAGE)
    if two.end > size:
        two = AddressRange(size - PAGE, PAGE)
    bar = ShapeBar(0, BarKind.MEM32, size, direct=tuple(draw.shuffled((one, two))))
    others = tuple(b for b in shape.bars if b.index != 0 and shape.msix is None)
    return replace(shape, bars=(bar, *others), msix=None, steps=())


def odd_size(draw: Draw, shape: Shape) -> Shape:
    """Let a region have a size that no BAR can have. A known finding: seldom."""
    if not shape.bars or not draw.one_in(8):
        return overlap(draw, shape)
    bar = draw.pick(shape.bars)
    others = tuple(
        b if b.index != bar.index else replace(b, size=b.size * 3, direct=False)
        for b in shape.bars
    )
    return replace(shape, bars=others, steps=())


def area_beyond(draw: Draw, shape: Shape) -> Shape:
    """Let an area end behind its region. A known finding: seldom."""
    memory = [bar for bar in shape.bars if bar.kind is not BarKind.IO]
    if not memory or not draw.one_in(8):
        return pba_outside(draw, shape)
    bar = draw.pick(memory)
    start = max(PAGE, bar.size) + draw.number(-1, 2) * PAGE
    area = AddressRange(max(0, start) & -PAGE, 2 * PAGE)
    others = tuple(b if b.index != bar.index else replace(b, direct=(area,)) for b in shape.bars)
    return replace(shape, bars=others)


SPOILERS: Final[tuple[Spoiler, ...]] = (
    table_beyond,
    pba_outside,
    pba_across_end,
    overlap,
    wrong_bir,
    absent_bar,
    overlapping_areas,
    odd_size,
    area_beyond,
)
