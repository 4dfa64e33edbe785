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
from harness.shapes.shape import (
    ANONYMOUS,
    PAGE,
    Action,
    Decode,
    Gate,
    Gates,
    Place,
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
_KINDS: Final = (None, None, BarKind.MEM32, BarKind.MEM64, BarKind.MEM64, BarKind.IO)
_MEMORY_BITS: Final = (*range(4, 12), *range(4, 12), *range(12, 18), *range(12, 18))
_LARGE_BITS: Final = (20, 21, 24, 27, 29, 30)
_HUGE_BITS: Final = (31, 32, 34, 36, 40)

Draw = st.DrawFn


@st.composite
def shapes(draw: Draw) -> Shape:
    """Return any shape: nine of ten legal, unless chance has it otherwise."""
    shape = draw(legal_shapes())
    if draw(st.integers(0, 9)) == 9:
        shape = draw(st.sampled_from(SPOILERS))(draw, shape)
    return shape


@st.composite
def legal_shapes(draw: Draw) -> Shape:
    """Return a shape that specification and QEMU allow."""
    bars = draw(bar_sets())
    identity, class_code = draw(st.sampled_from(IDS)) if _rarely(draw) else IDS[0]
    shape = Shape(
        bars=bars,
        id=identity,
        class_code=class_code,
        express=draw(st.booleans()),
        msi=draw(st.sampled_from((0, 0, 1, 32))),
        power=draw(st.booleans()),
        rom_size=1 << draw(st.integers(11, 20)) if draw(st.integers(0, 15)) == 15 else 0,
        place=draw(st.sampled_from((Place.ROOT, Place.ROOT, Place.PORT, Place.BRIDGE))),
    )
    if any(bar.size >= _LEAST_MSIX for bar in bars) and draw(st.booleans()):
        shape = replace(shape, msix=draw(msix_of(bars)))
        shape = _as_the_device_says(shape)
    if shape.place is not Place.ROOT and draw(st.booleans()):
        shape = replace(shape, gates=draw(gates()))
    if draw(st.integers(0, 2)):
        shape = replace(shape, steps=draw(step_lists(shape)))
    return shape


def _rarely(draw: Draw) -> bool:
    return draw(st.integers(0, 3)) == 3


@st.composite
def bar_sets(draw: Draw) -> tuple[ShapeBar, ...]:
    """Return BARs that can be beside each other."""
    bars: list[ShapeBar] = []
    index = 0
    while index < 6:
        kind = draw(st.sampled_from(_KINDS))
        if kind is BarKind.MEM64 and index == 5 and not _rarely(draw):
            kind = BarKind.MEM32  # a 64-bit BAR in the last slot is for connoisseurs
        if kind is not None:
            bars.append(draw(one_bar(index, kind)))
        index += 2 if kind is BarKind.MEM64 else 1
    return tuple(bars)


@st.composite
def one_bar(draw: Draw, index: int, kind: BarKind) -> ShapeBar:
    """Return BAR *index*."""
    if kind is BarKind.IO:
        size = 1 << draw(st.integers(2, 8))
        return ShapeBar(index, kind, size, direct=draw(st.integers(0, 9)) == 9)
    bits = draw(st.sampled_from(_MEMORY_BITS))
    if draw(st.integers(0, 7)) == 7:
        more = _HUGE_BITS if kind is BarKind.MEM64 else ()
        bits = draw(st.sampled_from(_LARGE_BITS + more))
    size = 1 << bits
    prefetchable = kind is BarKind.MEM64 and draw(st.booleans())
    how = draw(st.integers(0, 7))
    if how == 7:
        return ShapeBar(index, kind, size, prefetchable, False)
    direct: bool | tuple[AddressRange, ...] = True
    if how in (5, 6):
        direct = draw(areas(size))
    return ShapeBar(index, kind, size, prefetchable, direct)


@st.composite
def areas(draw: Draw, size: int) -> tuple[AddressRange, ...]:
    """Return areas of a region that may be mapped: apart, adjacent, at the end, of odd size."""
    if size <= PAGE:
        return (AddressRange(0, draw(st.sampled_from((size, size, max(1, size // 2))))),)
    pages = size // PAGE
    near = st.integers(0, min(pages, 24))
    far = near.map(lambda page: pages - page)
    edges = draw(st.lists(near | far, min_size=2, max_size=8, unique=True).map(sorted))
    chosen = [
        AddressRange.of(start * PAGE, end * PAGE)
        for start, end in pairwise(edges)
        if draw(st.integers(0, 3)) != 3
    ]
    if not chosen:
        chosen = [AddressRange.of(edges[0] * PAGE, edges[1] * PAGE)]
    flaw = draw(st.integers(0, 11))
    if flaw == 11:  # not on a page: mmap() refuses
        first = chosen[0]
        chosen[0] = AddressRange(first.start + 0x200, first.size - 0x200)
    elif flaw == 10:  # ends inside a page
        last = chosen[-1]
        chosen[-1] = AddressRange(last.start, last.size - draw(st.sampled_from((1, 8, 0x800))))
    elif flaw == 9:
        chosen.reverse()
    return tuple(chosen)


@st.composite
def msix_of(draw: Draw, bars: Sequence[ShapeBar]) -> ShapeMsix:
    """Return MSI-X whose table and PBA fit into *bars* if any can."""
    roomy = [bar for bar in bars if bar.size >= _LEAST_MSIX] or list(bars)
    table_bar, pba_bar = draw(st.sampled_from(roomy)), draw(st.sampled_from(roomy))
    if draw(st.booleans()):
        pba_bar = table_bar
    together = table_bar.index == pba_bar.index
    most = max(1, min(2048, table_bar.size // 2 // 16 if together else table_bar.size // 16))
    vectors = min(draw(st.sampled_from(VECTORS) | st.integers(1, 2048)), most)
    table_size, pba_size = 16 * vectors, 8 * ((vectors + 63) // 64)
    table = draw(offsets(max(0, table_bar.size - table_size)))
    msix = ShapeMsix(
        vectors, table_bar.index, table, pba_bar.index, 0, mappable=draw(st.booleans())
    )
    pba = draw(offsets(max(0, pba_bar.size - pba_size)))
    if together and msix.table.overlaps(AddressRange(pba, pba_size)):
        # Right behind the table, or right before it.
        pba = table + table_size if msix.table.end + pba_size <= pba_bar.size else 0
    return replace(msix, pba_offset=pba)


def offsets(last: int) -> st.SearchStrategy[int]:
    """Return offsets of a structure up to *last*: on pages, across them, at both ends."""
    last = min(last, _LAST_OFFSET)
    page_edges = st.integers(0, min(last // PAGE, 16)).map(lambda page: page * PAGE)
    near = st.tuples(page_edges, st.sampled_from((-0x400, -0x80, -0x10, -8, 0, 8, 0x10, 0x800)))
    found = st.one_of(
        st.just(0),
        page_edges,
        near.map(sum),
        st.integers(0, min(last, 8 * PAGE)),
        st.sampled_from((last, last - 8, last - 0x800, last // 2)),
    )
    return found.map(lambda offset: max(0, min(offset, last)) & ~7)


def _as_the_device_says(shape: Shape) -> Shape:
    """Give the devices whose PBA QEMU corrects the one that they are known to have."""
    wrong = {CHELSIO_VF: 0x8000, KUNLUN_VF: 0x460000}.get(shape.id)
    if wrong is None or shape.msix is None:
        return shape
    return replace(shape, msix=replace(shape.msix, pba_offset=wrong))


@st.composite
def gates(draw: Draw) -> Gates:
    """Return windows of a bridge that may cut what is behind it."""

    def part(unit: int) -> AddressRange | None:
        if draw(st.booleans()):
            return None
        start = draw(st.integers(0, 3))
        return AddressRange(start * unit, draw(st.integers(1, 4)) * unit)

    return Gates(low=part(MIB), high=part(MIB), ports=part(PAGE))


@st.composite
def step_lists(draw: Draw, shape: Shape) -> tuple[Step, ...]:
    """Return what a firmware that is in no hurry does with the BARs of *shape*."""
    first: list[Action] = [draw(puts(bar)) for bar in draw(st.permutations(shape.bars))]
    if shape.rom_size:
        first.append(Rom(draw(st.integers(0, 3)) * max(shape.rom_size, PAGE)))
    on = Decode(memory=True, ports=True)
    first.insert(0 if _rarely(draw) else len(first), on)
    more = draw(st.lists(st.lists(actions(shape), min_size=1, max_size=3), max_size=4))
    return (tuple(first), *(tuple(step) for step in more))


def actions(shape: Shape) -> st.SearchStrategy[Action]:
    """Return one thing that firmware does."""
    choices: list[st.SearchStrategy[Action]] = [
        st.builds(Decode, st.booleans(), st.booleans()),
        st.just(Decode(True, True)),
        st.just(SizeBars()),
    ]
    if shape.place is not Place.ROOT:
        choices.append(st.builds(Gate, st.booleans(), st.booleans()))
    if shape.bars:
        moves: st.SearchStrategy[Action] = st.sampled_from(shape.bars).flatmap(puts)
        choices += [moves, moves, moves]
    return st.one_of(choices)


@st.composite
def puts(draw: Draw, bar: ShapeBar) -> Put:
    """Return a place for *bar*: few places, so that BARs meet."""
    high = bar.kind is BarKind.MEM64 and (bar.size >= GIB or draw(st.booleans()))
    room = 4 * PAGE if bar.kind is BarKind.IO else MIB * 64 if high else GIB // 16
    turns = max(0, min(7, room // bar.size - 1))
    at = draw(st.integers(0, turns)) * bar.size
    if bar.size < PAGE and draw(st.booleans()):
        at += draw(st.integers(0, 3)) * PAGE
    return Put(bar.index, at, high, high_first=high and draw(st.booleans()))


# -- shapes that are just not legal -----------------------------------------------------------

Spoiler = Callable[[Draw, Shape], Shape]


def _with_msix(draw: Draw, shape: Shape) -> Shape:
    if not shape.bars:
        shape = replace(shape, bars=(ShapeBar(0, BarKind.MEM32, 4 * PAGE),))
    if shape.msix is None:
        shape = replace(shape, msix=draw(msix_of(shape.bars)))
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
    offset = max(0, size - msix.table.size + draw(st.sampled_from((8, 0x10, PAGE)))) & ~7
    if offset > _LAST_OFFSET:
        return overlap(draw, shape)
    return replace(shape, msix=replace(msix, table_offset=offset))


def pba_outside(draw: Draw, shape: Shape) -> Shape:
    """Let the PBA begin at the end of its BAR or behind it."""
    shape = _with_msix(draw, shape)
    msix, _, size = _table_size_at(shape)
    if size > _LAST_OFFSET:
        return overlap(draw, shape)
    return replace(
        shape, msix=replace(msix, pba_offset=size + draw(st.sampled_from((0, 8, PAGE))))
    )


def pba_across_end(draw: Draw, shape: Shape) -> Shape:
    """Let the PBA begin inside its BAR and end outside."""
    shape = _with_msix(draw, shape)
    msix, _, size = _table_size_at(shape)
    vectors = draw(st.sampled_from((65, 129, 2048)))
    if size > _LAST_OFFSET:
        return overlap(draw, shape)
    return replace(shape, msix=replace(msix, vectors=vectors, pba_offset=max(0, size - 8)))


def overlap(draw: Draw, shape: Shape) -> Shape:
    """Lay the PBA over the table."""
    shape = _with_msix(draw, shape)
    msix, _, _ = _table_size_at(shape)
    inside = draw(st.integers(0, msix.table.size - 8)) & ~7
    return replace(
        shape,
        msix=replace(msix, pba_bar=msix.table_bar, pba_offset=msix.table_offset + inside),
    )


def wrong_bir(draw: Draw, shape: Shape) -> Shape:
    """Name a BAR that no function has."""
    shape = _with_msix(draw, shape)
    msix, _, _ = _table_size_at(shape)
    bir = draw(st.integers(6, 7))
    wrong = draw(st.sampled_from(("table_bar", "pba_bar")))
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
    bar = draw(st.sampled_from(free))
    # The table is a known finding: seldom.
    table = draw(st.integers(0, 7)) == 7
    return replace(
        shape, msix=replace(msix, table_bar=bar) if table else replace(msix, pba_bar=bar)
    )


def overlapping_areas(draw: Draw, shape: Shape) -> Shape:
    """Let two areas of a region overlap."""
    size = 1 << draw(st.integers(14, 20))
    pages = size // PAGE
    start = draw(st.integers(0, pages - 3))
    one = AddressRange(start * PAGE, draw(st.integers(2, pages - start)) * PAGE)
    two = AddressRange(
        draw(st.integers(start, one.end // PAGE - 1)) * PAGE, draw(st.integers(1, 2)) * PAGE
    )
    if two.end > size:
        two = AddressRange(size - PAGE, PAGE)
    bar = ShapeBar(0, BarKind.MEM32, size, direct=tuple(draw(st.permutations((one, two)))))
    others = tuple(b for b in shape.bars if b.index != 0 and shape.msix is None)
    return replace(shape, bars=(bar, *others), msix=None, steps=())


def odd_size(draw: Draw, shape: Shape) -> Shape:
    """Let a region have a size that no BAR can have. A known finding: seldom."""
    if not shape.bars or draw(st.integers(0, 7)) != 7:
        return overlap(draw, shape)
    bar = draw(st.sampled_from(shape.bars))
    others = tuple(
        b if b.index != bar.index else replace(b, size=b.size * 3, direct=False)
        for b in shape.bars
    )
    return replace(shape, bars=others, steps=())


def area_beyond(draw: Draw, shape: Shape) -> Shape:
    """Let an area end behind its region. A known finding: seldom."""
    memory = [bar for bar in shape.bars if bar.kind is not BarKind.IO]
    if not memory or draw(st.integers(0, 7)) != 7:
        return pba_outside(draw, shape)
    bar = draw(st.sampled_from(memory))
    start = max(PAGE, bar.size) + draw(st.integers(-1, 2)) * PAGE
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
