"""The `Expectation` for a function assigned with vfio-pci, from facts alone.

Layers of a BAR from bottom to top, as QEMU stacks memory regions: ``base BAR n`` (i/o, since
3a286732d1, 2.12; covered by the next wherever the device has bytes), ``BAR n`` (i/o),
``mmaps[i]`` (ramd), quirk windows, ``msix-table``, ``msix-pba`` or ``VFIO MSIX PBA``. A layer
shows where nothing above it does, and one layer cut in two by another makes two rows.

BARs themselves are stacked too: one that fills its page is below all others, and of others
that overlap the one that came last is on top (``memory_region_add_subregion_overlap()``).

Not modelled: ``romfile=``, and several regions in one mediated device beyond its BARs.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.model.address import AddressRange
from harness.model.expectation import ROM_BAR, Expectation, ExpectedRow, Space, Window
from harness.model.layers import Layer, Piece, paint
from harness.model.memory_map import Kind
from harness.model.pci import BarKind
from harness.model.row_rule import RowRule
from harness.model.vfio.case import Transport, VfioCase
from harness.model.vfio.mapping import (
    GuestBar,
    GuestLayout,
    RegionFacts,
    beside_table_pages,
    check_areas,
    guest_layout,
    mapped_areas,
    region_facts_of_linux,
)
from harness.model.vfio.quirks import QuirkContext, QuirkWindow, quirk_windows


def expect_vfio(case: VfioCase) -> Expectation:
    """Return the map that must be.

    :raise VfioRefused: QEMU would refuse the device.
    :raise ValueError: the case contradicts itself: an address for a BAR that is not there or
        not aligned to it, BARs that overlap, a QEMU that is too old.
    """
    if not case.qemu.has(2, 9):
        raise ValueError(f"QEMU {case.qemu} prints no types in flat views; 2.9 is the first")
    facts: dict[int, RegionFacts] = {}
    if case.transport is Transport.KERNEL:
        facts = region_facts_of_linux(case.function, case.kernel, case.page, case.subpage_reserved)
    facts.update(case.regions)
    check_areas(facts, case.qemu)
    layout = guest_layout(case.function, case.options, page=case.page, qemu=case.qemu)
    bars = {bar.index: bar for bar in layout.bars}
    _check(case, bars)
    builder = _Builder(case, facts, layout)

    rows: list[tuple[Space, ExpectedRow]] = []
    windows: list[Window] = []
    for index in sorted(case.bar_addresses):
        for window, expected in builder.bar(bars[index]):
            windows.append(window)
            rows += [(window.space, row) for row in expected]
    for window, expected in builder.rom():
        windows.append(window)
        rows += [(window.space, row) for row in expected]
    return Expectation(
        name=case.prefix,
        windows=tuple(windows),
        rows=tuple(rows),
        page=case.page,
        device_id=case.device_id,
        vga=case.options.vga,
    )


def _check(case: VfioCase, bars: Mapping[int, GuestBar]) -> None:
    taken: list[tuple[Space, AddressRange, int]] = []
    for index, address in sorted(case.bar_addresses.items()):
        bar = bars.get(index)
        if bar is None:
            raise ValueError(f"an address for BAR {index}, which {case.prefix} has not")
        if address % bar.size:
            raise ValueError(f"BAR {index} of {bar.size:#x} bytes cannot be at {address:#x}")
        here = AddressRange(address, bar.size)
        for space, there, other in taken:
            if space is _space(bar) and here.overlaps(there) and not case.order:
                raise ValueError(f"BAR {index} at {here} overlaps BAR {other} at {there}")
        taken.append((_space(bar), here, index))
    if case.rom_address is not None and not case.function.rom_size:
        raise ValueError(f"an address for the ROM, which {case.prefix} has not")
    lost = set(case.bar_addresses) - set(case.order)
    if case.order and lost:
        raise ValueError(f"BAR {min(lost)} has an address but no place in the order")


def _space(bar: GuestBar) -> Space:
    return Space.PORTS if bar.kind is BarKind.IO else Space.MEMORY


class _Builder:
    """Makes the rows of one BAR after another."""

    def __init__(
        self, case: VfioCase, facts: Mapping[int, RegionFacts], layout: GuestLayout
    ) -> None:
        self.case = case
        self.facts = facts
        self.layout = layout
        context = QuirkContext(
            function=case.function,
            qemu=case.qemu,
            vga=case.options.vga,
            no_geforce_quirks=case.options.no_geforce_quirks,
            igd_gms=case.options.igd_gms,
            nvidia_window=case.state.nvidia_window,
        )
        self.quirks = quirk_windows(context) if case.transport is Transport.KERNEL else ()
        self.stack = self.stacked()

    def stacked(self) -> tuple[tuple[int, Space, AddressRange], ...]:
        """Return what decodes, with its place, the lower first."""
        addresses = self.case.bar_addresses
        order = self.case.order or tuple(sorted(addresses))
        found: list[tuple[int, int, int, Space, AddressRange]] = []
        for bar in self.layout.bars:
            if bar.index in addresses:
                # A BAR that fills its page gives way to all others in it (priority 0 against 1).
                priority = 0 if self.gives_way(bar) else 1
                place = AddressRange(addresses[bar.index], self.shown_size(bar))
                found.append((priority, order.index(bar.index), bar.index, _space(bar), place))
        if self.case.rom_address is not None:
            turn = order.index(ROM_BAR) if ROM_BAR in order else len(order)
            place = AddressRange(self.case.rom_address, self.case.function.rom_size)
            found.append((1, turn, ROM_BAR, Space.MEMORY, place))
        return tuple((index, space, place) for _, _, index, space, place in sorted(found))

    def shown_size(self, bar: GuestBar) -> int:
        """Return the size of its outermost region."""
        areas = self.areas(bar)
        larger = self.fills_page(bar, areas) or self.has_grown(bar, areas)
        return max(bar.size, self.case.page) if larger else bar.size

    def bar(self, bar: GuestBar) -> list[tuple[Window, tuple[ExpectedRow, ...]]]:
        """Return each window of the BAR with its rows."""
        place = AddressRange(self.case.bar_addresses[bar.index], self.shown_size(bar))
        return self.pieces(bar.index, _space(bar), place, self.layers(bar, self.areas(bar)))

    def rom(self) -> list[tuple[Window, tuple[ExpectedRow, ...]]]:
        """Return each window of the expansion ROM with its rows."""
        if self.case.rom_address is None:
            return []
        place = AddressRange(self.case.rom_address, self.case.function.rom_size)
        name = f"vfio[{self.case.prefix}].rom"
        layer = Layer(AddressRange(0, place.size), Kind.IO, name, RowRule.ROM)
        return self.pieces(ROM_BAR, Space.MEMORY, place, (layer,))

    def pieces(
        self, index: int, space: Space, place: AddressRange, layers: tuple[Layer, ...]
    ) -> list[tuple[Window, tuple[ExpectedRow, ...]]]:
        """Return what shows of *layers* at *place*: not what is below others, or shut out."""
        parts = [place]
        for other in self.above(index, space):
            parts = [piece for part in parts for piece in _without(part, other)]
        if self.case.let_through is not None:
            gates = _joined(self.case.let_through.get(space, ()))
            seen = [part.intersection(gate) for part in parts for gate in gates]
            parts = [part for part in seen if part is not None]
        return [
            (
                Window(index, space, part),
                tuple(
                    self.row(piece, place.start, space)
                    for piece in paint(part.shifted(-place.start), layers)
                ),
            )
            for part in parts
        ]

    def above(self, index: int, space: Space) -> list[AddressRange]:
        """Return what wins against BAR *index* where both decode."""
        turn = [place[0] for place in self.stack].index(index)
        mine = [there for _, where, there in self.stack[turn + 1 :] if where is space]
        bar = next((bar for bar in self.layout.bars if bar.index == index), None)
        below = bar is not None and self.gives_way(bar)
        return [*mine, *self.case.neighbours] if below else mine

    def row(self, piece: Piece, address: int, space: Space) -> ExpectedRow:
        """Return the row that *piece* of a BAR at *address* makes."""
        case, layer = self.case, piece.layer
        where = piece.range.shifted(address)
        marked: bool | None = (
            case.kvm
            and space is Space.MEMORY
            and layer.kind is Kind.RAMD
            and where.page_aligned(case.page)
        )
        if case.kvm and not case.qemu.has(4, 1):
            marked = None
        return ExpectedRow(
            where, layer.kind, layer.name, piece.offset, marked, layer.rule, layer.priority
        )

    def areas(self, bar: GuestBar) -> tuple[AddressRange, ...]:
        """Return what QEMU maps of the BAR."""
        facts = self.facts.get(bar.index)
        if facts is None or not bar.region_size:
            return ()
        return mapped_areas(
            bar.region_size,
            facts,
            self.own_table(bar),
            page=self.case.page,
            qemu=self.case.qemu,
            no_mmap=self.case.options.no_mmap,
        )

    def own_table(self, bar: GuestBar) -> AddressRange | None:
        """Return the bytes of the BAR where the device has its MSI-X table."""
        msix = self.case.function.msix
        return msix.table if msix is not None and msix.table_bar == bar.index else None

    def fills_page(self, bar: GuestBar, areas: tuple[AddressRange, ...]) -> bool:
        """Follow ``vfio_sub_page_bar_update_mapping()``."""
        whole = (AddressRange(0, bar.region_size),) if bar.region_size else ()
        aligned = self.case.bar_addresses[bar.index] % self.case.page == 0
        fills = self.case.by_power.get(bar.index, aligned)
        return bool(areas) and areas == whole and bar.region_size < self.case.page and fills

    def gives_way(self, bar: GuestBar) -> bool:
        """Say whether others win: it fills its page, and vfio was there to put it below."""
        return self.fills_page(bar, self.areas(bar)) and bar.index not in self.case.by_power

    def has_grown(self, bar: GuestBar, areas: tuple[AddressRange, ...]) -> bool:
        """Say whether it filled a page before and does not now; nothing makes it shrink."""
        whole = (AddressRange(0, bar.region_size),) if bar.region_size else ()
        filled = bar.index in self.case.grown and bool(areas) and areas == whole
        return filled and bar.region_size < self.case.page and not self.fills_page(bar, areas)

    def layers(self, bar: GuestBar, areas: tuple[AddressRange, ...]) -> tuple[Layer, ...]:
        """Return the layers of the BAR, bottom first."""
        name, rules = f"{self.case.prefix} BAR {bar.index}", self.rules(bar, areas)
        fills = self.fills_page(bar, areas)
        region_size = max(bar.region_size, self.case.page if fills else 0)
        base = f"{self.case.prefix} base BAR {bar.index}"
        behind = RowRule.GROWN if self.has_grown(bar, areas) else RowRule.RELOCATED
        size = max(self.shown_size(bar), region_size)
        layers = [Layer(AddressRange(0, size), Kind.IO, base, behind, 1)]
        quirks: list[Layer] = []
        if region_size:
            region = AddressRange(0, region_size)
            layers.append(Layer(region, Kind.IO, name, rules[0]))
            shown = (region,) if fills else areas
            if not self.case.state.mmaps_off:
                layers += [
                    Layer(area, Kind.RAMD, f"{name} mmaps[{i}]", rules[1])
                    for i, area in enumerate(shown)
                ]
            quirks = [
                Layer(part, Kind.IO, quirk.name, quirk.rule, 1)
                for quirk, part in self.clipped_quirks(bar, region)
            ]
        table = self.table_layers(bar)
        # Until 2.11 the table was a child of BAR n, below the quirks' priority.
        layers += [*quirks, *table] if self.case.qemu.has(2, 12) else [*table, *quirks]
        return tuple(layers)

    def clipped_quirks(
        self, bar: GuestBar, region: AddressRange
    ) -> list[tuple[QuirkWindow, AddressRange]]:
        """Return the quirk windows of the BAR that begin inside *region*.

        They keep their start, so a clipped one still shows without an offset.
        """
        parts = [(q, q.range.intersection(region)) for q in self.quirks if q.bar == bar.index]
        return [(quirk, part) for quirk, part in parts if part is not None]

    def table_layers(self, bar: GuestBar) -> list[Layer]:
        """Return what MSI-X emulation lays over the BAR."""
        msix, layers = self.layout.msix, list[Layer]()
        if msix is None:
            return layers
        if msix.table_bar == bar.index and not self.case.options.no_msix_emulation:
            layers.append(Layer(msix.table, Kind.IO, "msix-table", RowRule.TABLE))
        if msix.pba_bar == bar.index and self.case.transport is Transport.USER:
            layers.append(Layer(msix.pba, Kind.IO, "VFIO MSIX PBA", RowRule.USER_PBA, 1))
        elif msix.pba_bar == bar.index and self.case.state.pba_shown:
            layers.append(Layer(msix.pba, Kind.IO, "msix-pba", RowRule.PBA))
        return layers

    def rules(self, bar: GuestBar, areas: tuple[AddressRange, ...]) -> tuple[RowRule, RowRule]:
        """Return the rules behind ``BAR n`` and behind ``mmaps[i]``."""
        case, table, size = self.case, self.own_table(bar), bar.region_size
        facts = self.facts.get(bar.index)
        if bar.kind is BarKind.IO:
            return RowRule.PORTS, RowRule.WHOLE
        if case.options.no_mmap:
            return RowRule.NO_MMAP, RowRule.WHOLE
        if facts is None or not facts.mappable:
            slow = RowRule.SUBPAGE_SLOW if size < case.page else RowRule.NOT_MAPPABLE
            return slow, RowRule.WHOLE
        slow, mapped = RowRule.NOT_MAPPABLE, RowRule.WHOLE
        if facts.sparse and not areas:
            return slow, mapped  # mmap() failed
        if areas != ((AddressRange(0, size),) if size else ()):
            slow, mapped = RowRule.SPARSE, RowRule.SPARSE
            if table is not None and areas == beside_table_pages(size, table, case.page):
                slow, mapped = RowRule.TABLE_PAGES, RowRule.BESIDE_TABLE_PAGES
        elif size < case.page:
            mapped = RowRule.SUBPAGE
        elif case.options.msix_relocation is not None and (table or bar.size > size):
            mapped = RowRule.RELOCATED
        elif table is not None:
            emulated = not case.options.no_msix_emulation
            mapped = RowRule.AROUND_TABLE if emulated else RowRule.NO_EMULATION
        return (RowRule.INTX if case.state.mmaps_off and areas else slow), mapped


def _without(part: AddressRange, other: AddressRange) -> list[AddressRange]:
    if not part.overlaps(other):
        return [part]
    ends = ((part.start, other.start), (other.end, part.end))
    return [AddressRange.of(start, end) for start, end in ends if start < end]


def _joined(ranges: tuple[AddressRange, ...]) -> list[AddressRange]:
    """Return *ranges* with those that touch made one: QEMU shows no seam between them."""
    joined: list[AddressRange] = []
    for part in sorted(ranges):
        if joined and part.start <= joined[-1].end:
            last = joined.pop()
            part = AddressRange.of(last.start, max(last.end, part.end))
        joined.append(part)
    return joined
