"""The oracle with one rule switched off: what a check must notice to be worth anything.

Each mutant replaces one function of the oracle for as long as it is entered. Rules that only a
kernel can break (`UNREACHABLE`) are for other suites.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from harness.model.address import AddressRange
from harness.model.layers import Layer, Piece, paint
from harness.model.row_rule import RowRule
from harness.model.vfio import expectation as expectation
from harness.model.vfio import mapping as mapping
from harness.model.vfio.case import Transport, VfioCase
from harness.model.vfio.mapping import RegionFacts
from harness.model.vfio.quirks import QuirkContext, quirk_windows
from harness.shapes import programming

_KERNEL_ONLY: Final = "vfio-pci alone: there is no such option, quirk or window with vfio-user"

UNREACHABLE: Final[dict[str, str]] = {
    RowRule.PBA: _KERNEL_ONLY,
    RowRule.NO_MMAP: _KERNEL_ONLY,
    RowRule.RELOCATED: _KERNEL_ONLY,
    RowRule.NO_EMULATION: "a machine with vfio-no-msix-emulation (pseries)",
    RowRule.INTX: "an interrupt has to be pending while the map is read",
    RowRule.NVIDIA_88000: _KERNEL_ONLY,
    RowRule.NVIDIA_1800: _KERNEL_ONLY,
    RowRule.NVIDIA_BAR5: _KERNEL_ONLY,
    RowRule.ATI: _KERNEL_ONLY,
    RowRule.RTL8168: _KERNEL_ONLY,
    RowRule.IGD: _KERNEL_ONLY,
}
"""Rules of rows that no shape can meet, with the reason."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One rule of the oracle, switched off."""

    name: str
    """What the oracle no longer knows."""
    rule: str
    module: Any
    attribute: str
    replacement: Any

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Judge by it while inside; only this process, and one mutant at a time."""
        holder, _, name = self.attribute.rpartition(".")
        target = getattr(self.module, holder) if holder else self.module
        original = target.__dict__[name]
        setattr(target, name, self.replacement)
        try:
            yield
        finally:
            setattr(target, name, original)


def mutants() -> tuple[Mutant, ...]:
    """Return all of them."""
    rows = [rule for rule in RowRule if rule not in UNREACHABLE]
    return (*(_without_layer(rule) for rule in rows), *_DECISIONS)


def _without_layer(rule: RowRule) -> Mutant:
    def painted(window: AddressRange, layers: tuple[Layer, ...]) -> tuple[Piece, ...]:
        return paint(window, tuple(layer for layer in layers if layer.rule != rule))

    return Mutant(f"rows of {rule.name}", rule, expectation, "paint", painted)


_Areas = tuple[AddressRange, ...]
_mapped_areas: Final = mapping.mapped_areas


def _areas_with(**fixed: Any) -> Callable[..., _Areas]:
    """Return `mapped_areas` with some of what it looks at fixed."""

    def areas(size: int, facts: RegionFacts, table: AddressRange | None, **more: Any) -> _Areas:
        given: dict[str, Any] = {"size": size, "facts": facts, "table": table, **more}
        for name, value in fixed.items():
            given[name] = value(given) if callable(value) else value
        return _mapped_areas(**given)

    return areas


def _unsorted(size: int, facts: RegionFacts, table: AddressRange | None, **more: Any) -> _Areas:
    areas = _mapped_areas(size, facts, table, **more)
    return areas if facts.sparse is None or not areas else facts.sparse


def _cut_table_out_of_areas(
    size: int, facts: RegionFacts, table: AddressRange | None, **more: Any
) -> _Areas:
    areas = _mapped_areas(size, facts, table, **more)
    if table is None or facts.sparse is None or facts.msix_mappable:
        return areas
    gates = mapping.beside_table_pages(size, table, more["page"])
    parts = [area.intersection(gate) for area in areas for gate in gates]
    return tuple(part for part in parts if part is not None)


def _as_if_aligned(
    size: int, facts: RegionFacts, table: AddressRange | None, **more: Any
) -> _Areas:
    areas = _mapped_areas(size, facts, table, **more)
    return areas or (facts.sparse or () if facts.mappable else ())


def _kernel_quirks(self: Any) -> tuple[Any, ...]:
    """Stack as usual, but let quirks be there first."""
    case: VfioCase = self.case
    self.quirks = quirk_windows(
        QuirkContext(
            function=case.function,
            qemu=case.qemu,
            vga=True,
            no_geforce_quirks=False,
            igd_gms=True,
            nvidia_window=True,
        )
    )
    stacked: tuple[Any, ...] = _stacked(self)
    return stacked


_Builder = expectation._Builder
_stacked: Final = _Builder.stacked
_layers: Final = _Builder.table_layers


def _stacked_by_index(self: Any) -> tuple[Any, ...]:
    return tuple(sorted(_stacked(self), key=lambda place: place[0]))


def _stacked_all_alike(self: Any) -> tuple[Any, ...]:
    order = list(self.case.order)
    return tuple(sorted(_stacked(self), key=lambda place: order.index(place[0])))


def _kernel_table_layers(self: Any, bar: Any) -> list[Layer]:
    case: VfioCase = self.case
    self.case = replace(case, transport=Transport.KERNEL)
    try:
        return _layers(self, bar)
    finally:
        self.case = case


def _everything_passes(self: Any) -> None:
    return None


def _apart(ranges: _Areas) -> list[AddressRange]:
    return sorted(ranges)


def _always_on(self: Any, bar: Any) -> int | None:
    command, self.command = self.command, 3
    try:
        return _address(self, bar)
    finally:
        self.command = command


_address: Final = programming.Decoding._address


def _once(self: Any, write: programming.Write) -> None:
    if write.offset == programming.COMMAND or not self.registers.get(write.offset):
        _write(self, write)


_write: Final = programming.Decoding.write


def _looks(self: Any, asleep: bool) -> None:
    self.asleep = asleep
    self._update()


def _never(*_: Any, **__: Any) -> bool:
    return False


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _believes_pba(function: Any, qemu: Any, *, relocated: bool) -> Any:
    return function.msix


def _no_correction(function: Any, qemu: Any, *, relocated: bool) -> Any:
    plain = replace(function, id=type(function.id)(0, 0))
    return _checked_pba(plain, qemu, relocated=relocated)


_checked_pba: Final = mapping._checked_pba

_DECISIONS: Final = (
    Mutant(
        "pages of the table left out", "MAP-03", expectation, "mapped_areas",
        _areas_with(table=None),
    ),
    Mutant(
        "table mapped with the rest where the server allows it", "MAP-04", expectation,
        "mapped_areas",
        _areas_with(facts=lambda given: replace(given["facts"], msix_mappable=False)),
    ),
    Mutant(
        "no page left out of areas", "MAP-07", expectation, "mapped_areas",
        _cut_table_out_of_areas,
    ),
    Mutant("areas sorted", "MAP-17", expectation, "mapped_areas", _unsorted),
    Mutant("areas off a page refused by mmap()", "MAP-19", expectation, "mapped_areas",
           _as_if_aligned),
    Mutant("overlapping areas refused", "MAP-17", expectation, "check_areas", _nothing),
    Mutant("BAR below a page fills it", "MAP-16", expectation, "_Builder.fills_page", _never),
    Mutant("BAR that fills a page gives way", "MAP-16", expectation, "_Builder.stacked",
           _stacked_all_alike),
    Mutant("container stays grown", "MAP-39", expectation, "_Builder.has_grown", _never),
    Mutant("later BAR on top", "MAP-40", expectation, "_Builder.stacked", _stacked_by_index),
    Mutant("windows of bridges", "MAP-41", programming, "Programmer.let_through",
           property(_everything_passes)),
    Mutant("PBA of vfio-user", "MAP-38", expectation, "_Builder.table_layers",
           _kernel_table_layers),
    Mutant("no quirk with vfio-user", "QRK-11", expectation, "_Builder.stacked", _kernel_quirks),
    Mutant("nothing decodes that is off", "MAP-27", programming, "Decoding._address", _always_on),
    Mutant("nothing decodes in D3", "MAP-42", programming, "Decoding._sleep", _nothing),
    Mutant("back from D3 vfio does not look", "MAP-42", programming, "Decoding._sleep", _looks),
    Mutant("BARs move", "MAP-28", programming, "Decoding.write", _once),
    Mutant("PBA outside its BAR refused", "MAP-23", mapping, "_checked_pba", _believes_pba),
    Mutant("PBA of known devices corrected", "MAP-23", mapping, "_checked_pba", _no_correction),
    Mutant("table and PBA must fit", "MAP-23", mapping, "_check_fits", _nothing),
)  # fmt: skip
