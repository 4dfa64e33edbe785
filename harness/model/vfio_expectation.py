"""The `Expectation` for a function assigned with vfio-pci, from facts alone.

Layers of a BAR from bottom to top, as QEMU stacks memory regions: ``base BAR n`` (i/o, since
3a286732d1, 2.12; covered by the next wherever the device has bytes), ``BAR n`` (i/o),
``mmaps[i]`` (ramd), quirk windows, ``msix-table``, ``msix-pba``. A layer shows where nothing
above it does, and one layer cut in two by another makes two rows.

Not modelled: ``romfile=``, several regions in one mediated device beyond its BARs, and a BAR
below a page that was moved off a page boundary after it had been on one (``base BAR n`` then
keeps the size of a page, for ``vfio_sub_page_bar_update_mapping()`` never shrinks it).
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.model.address import AddressRange
from harness.model.expectation import ROM_BAR, Expectation, ExpectedRow, Space, Window
from harness.model.layers import Layer, Piece, paint
from harness.model.memory_map import Kind
from harness.model.pci import BarKind
from harness.model.row_rule import RowRule
from harness.model.vfio_case import VfioCase
from harness.model.vfio_mapping import (
    GuestBar,
    GuestLayout,
    RegionFacts,
    beside_table_pages,
    guest_layout,
    mapped_areas,
    region_facts_of_linux,
)
from harness.model.vfio_quirks import QuirkContext, QuirkWindow, quirk_windows


def expect_vfio(case: VfioCase) -> Expectation:
    """Return the map that must be.

    :raise VfioRefused: QEMU would refuse the device.
    :raise ValueError: the case contradicts itself: an address for a BAR that is not there or
        not aligned to it, BARs that overlap, a QEMU that is too old.
    """
    if not case.qemu.has(2, 9):
        raise ValueError(f"QEMU {case.qemu} prints no types in flat views; 2.9 is the first")
    layout = guest_layout(case.function, case.options, page=case.page, qemu=case.qemu)
    facts = region_facts_of_linux(case.function, case.kernel, case.page, case.subpage_reserved)
    facts.update(case.regions)
    builder = _Builder(case, facts, layout)
    bars = {bar.index: bar for bar in layout.bars}
    _check(case, bars)

    rows: list[tuple[Space, ExpectedRow]] = []
    windows: list[Window] = []
    for index in sorted(case.bar_addresses):
        for window, expected in builder.bar(bars[index]):
            windows.append(window)
            rows += [(window.space, row) for row in expected]
    if case.rom_address is not None:
        window = Window(
            ROM_BAR, Space.MEMORY, AddressRange(case.rom_address, case.function.rom_size)
        )
        rom = Layer(
            AddressRange(0, window.range.size), Kind.IO, f"vfio[{case.prefix}].rom", RowRule.ROM
        )
        windows.append(window)
        rows += [
            (Space.MEMORY, builder.row(Piece(rom.range, rom), window.range.start, Space.MEMORY))
        ]
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
            if space is _space(bar) and here.overlaps(there):
                raise ValueError(f"BAR {index} at {here} overlaps BAR {other} at {there}")
        taken.append((_space(bar), here, index))
    if case.rom_address is not None and not case.function.rom_size:
        raise ValueError(f"an address for the ROM, which {case.prefix} has not")


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
        self.quirks = quirk_windows(context)

    def bar(self, bar: GuestBar) -> list[tuple[Window, tuple[ExpectedRow, ...]]]:
        """Return each window of the BAR with its rows."""
        address = self.case.bar_addresses[bar.index]
        space = _space(bar)
        size = bar.size
        areas = self.areas(bar)
        if self.fills_page(bar, areas):
            size = max(size, self.case.page)
        window = AddressRange(address, size)
        layers = self.layers(bar, areas)
        # A BAR that fills its page gives way to all others in it (priority 0 against 1).
        parts = [window]
        if size > bar.size:
            for other in self.others(bar):
                parts = [piece for part in parts for piece in _without(part, other)]
        return [
            (
                Window(bar.index, space, part),
                tuple(
                    self.row(piece, address, space)
                    for piece in paint(part.shifted(-address), layers)
                ),
            )
            for part in parts
        ]

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
        return bool(areas) and areas == whole and bar.region_size < self.case.page and aligned

    def others(self, bar: GuestBar) -> list[AddressRange]:
        """Return the memory BARs that win against one that fills its page."""
        mine = [
            AddressRange(self.case.bar_addresses[other.index], other.size)
            for other in self.layout.bars
            if other.index in self.case.bar_addresses
            and other.index != bar.index
            and _space(other) is _space(bar)
        ]
        return [*mine, *self.case.neighbours]

    def layers(self, bar: GuestBar, areas: tuple[AddressRange, ...]) -> tuple[Layer, ...]:
        """Return the layers of the BAR, bottom first."""
        name, rules = f"{self.case.prefix} BAR {bar.index}", self.rules(bar, areas)
        fills = self.fills_page(bar, areas)
        region_size = max(bar.region_size, self.case.page if fills else 0)
        base = f"{self.case.prefix} base BAR {bar.index}"
        layers = [
            Layer(AddressRange(0, max(bar.size, region_size)), Kind.IO, base, RowRule.RELOCATED, 1)
        ]
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
        if msix.pba_bar == bar.index and self.case.state.pba_shown:
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
