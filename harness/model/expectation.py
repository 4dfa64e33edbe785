"""The map that must be, and the judge that holds a `MemoryMap` against it.

An `Expectation` is built from facts about the device and the versions (see
`harness.model.vfio.expectation`), never from the map it judges.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from harness.model.address import AddressRange
from harness.model.memory_map import FlatView, Kind, MemoryMap, Region

ROM_BAR: Final = 6
"""Index that stands for the expansion ROM."""

MARK_RULE: Final = "MT-18"
"""Under KVM a ``ramd`` row is marked exactly if it begins and ends on host pages: KVM slots
are whole pages and must match the row (``kvm_align_section()``, ``kvm_accel_has_memory()``,
marks since 8072aae377, 4.1)."""
OWNER_RULE: Final = "MT-26"
"""Rows are attributed by their owner; all rows of a device have it as such."""
DISABLED_RULE: Final = "MAP-27"
"""Nothing of a BAR that is not decoded is in the map (``pci_update_mappings()``)."""
PLACE_RULE: Final = "MAP-28"
"""BARs show where the guest put them, and nowhere else (same function)."""

_LEGACY_VGA: Final = (AddressRange.of(0xA0000, 0xC0000), AddressRange.of(0x3B0, 0x3E0))


class Space(enum.StrEnum):
    """Address space that a BAR decodes in, by QEMU's name."""

    MEMORY = "memory"
    PORTS = "I/O"


@dataclass(frozen=True, slots=True)
class ExpectedRow:
    """One row that must be in a flat view."""

    range: AddressRange
    """In the guest's address space."""
    kind: Kind
    name: str
    offset: int
    """Inside the named region."""
    marked: bool | None
    """Whether KVM holds a slot of exactly this row; None: that QEMU prints no marks."""
    rule: str
    """Id of the rule that says so."""
    priority: int = 0
    """Of the region; printed, never compared."""

    def difference(self, found: Region) -> str:
        """Say in which respect *found* is another row, '' if in none."""
        pairs = (
            ("range", _short_range(self.range), _short_range(found.range)),
            ("type", self.kind.value, found.word or found.kind.value),
            ("name", self.name, found.name),
            ("offset", f"{self.offset:#x}", f"{found.offset:#x}"),
        )
        parts = [f"{what}: expected {a}, found {b}" for what, a, b in pairs if a != b]
        return "; ".join(parts)

    def runs_on(self, found: Region) -> bool:
        """Say whether *found* is this row, only longer."""
        return found.range.start == self.range.start and (
            found.range.end > self.range.end
            and (found.kind, found.name, found.offset) == (self.kind, self.name, self.offset)
        )

    def mark_differs(self, found: Region) -> bool:
        """Say whether one of the two is marked and the other is not."""
        return self.marked is not None and self.marked is not found.in_kvm

    def region(self) -> Region:
        """Return it as a row of a map, as if a machine had said it."""
        marks = ("KVM",) if self.marked else ()
        return Region(
            self.range, self.kind, self.name, self.offset, self.priority, accelerators=marks
        )

    def __str__(self) -> str:
        return row_text(self.region())


def row_text(row: Region) -> str:
    """Return *row* as ``info mtree -f`` prints it, without owners."""
    offset = f" @{row.offset:016x}" if row.offset else ""
    marks = "".join(f" {mark}" for mark in row.accelerators)
    volatile = "nv-" if row.nonvolatile else ""
    kind = row.word or row.kind.value
    return f"{row.range} (prio {row.priority}, {volatile}{kind}): {row.name}{offset}{marks}"


def _short(row: Region) -> str:
    """Return *row* in as few columns as a table of two wants."""
    offset = f" @{row.offset:x}" if row.offset else ""
    mark = " KVM" if row.in_kvm else ""
    kind = row.word or row.kind.value
    return f"{_short_range(row.range)} {kind} {row.name}{offset}{mark}"


def _short_range(where: AddressRange) -> str:
    return f"{where.start:x}-{where.last:x}"


@dataclass(frozen=True, slots=True)
class Window:
    """Where a BAR decodes in the guest: a range that its rows must fill exactly."""

    bar: int
    """0 to 5, or `ROM_BAR`."""
    space: Space
    range: AddressRange

    def __str__(self) -> str:
        name = "ROM" if self.bar == ROM_BAR else f"BAR {self.bar}"
        return f'{name} at {_short_range(self.range)} of "{self.space}"'


@dataclass(frozen=True, slots=True)
class Difference:
    """The first row of a window that is not what it must be, or a row out of place."""

    summary: str
    """One line: what differs."""
    rule: str
    """Id of the rule that is broken."""
    window: Window | None
    """None for rows outside every window."""
    expected: ExpectedRow | None
    found: Region | None
    expected_rows: tuple[ExpectedRow, ...] = ()
    """All rows of the window."""
    found_rows: tuple[Region, ...] = ()
    index: int = 0
    """Place of the first row that differs in both."""

    def explain(self, context: int = 3) -> str:
        """Return the difference in words, with both tables around it, one line per row.

        ``!=`` stands before the first pair that differs, ``|`` before later ones.
        """
        where = "outside every BAR of the device" if self.window is None else str(self.window)
        if self.window is not None and self.expected is not None:
            where += f", from +{self.expected.range.start - self.window.range.start:#x}"
        lines = [f"[{self.rule}] {where}: {self.summary}"]
        left = [_short(row.region()) for row in self.expected_rows] or ["(nothing)"]
        right = [_short(row) for row in self.found_rows] or ["(nothing)"]
        first = max(0, self.index - context)
        last = self.index + context + 1
        pairs = list(zip_longest(left, right, fillvalue=""))[first:last]
        width = max(len("expected"), *(len(a) for a, _ in pairs))
        lines.append(f"    {'expected':<{width}}   found")
        for number, (a, b) in enumerate(pairs, first):
            sign = "!=" if number == self.index else "  " if a == b else " |"
            lines.append(f" {sign} {a:<{width}}   {b}".rstrip())
        if first:
            lines.insert(2, f"    ({first} equal rows before)")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a device must show in the memory map of its machine, row by row."""

    name: str
    """Prefix of its region names: ``0000:01:00.0``."""
    windows: tuple[Window, ...]
    """Where its BARs decode; disjoint, in the order of the BARs."""
    rows: tuple[tuple[Space, ExpectedRow], ...]
    """In the order of the windows; together they fill each window exactly."""
    page: int = 4096
    """Host page size."""
    device_id: str | None = None
    """``id=`` of the device; if given, owners are judged too, where the map has them."""
    vga: bool = False
    """The device also owns rows in the legacy VGA ranges."""

    def rows_in(self, window: Window) -> tuple[ExpectedRow, ...]:
        """Return the rows that fill *window*, lowest first."""
        return tuple(
            row
            for space, row in self.rows
            if space is window.space and window.range.covers(row.range)
        )

    def rows_of(self, space: Space) -> tuple[ExpectedRow, ...]:
        """Return the rows in *space*, lowest first."""
        found = (row for row_space, row in self.rows if row_space is space)
        return tuple(sorted(found, key=lambda row: row.range))

    def compare(self, memory_map: MemoryMap) -> tuple[Difference, ...]:
        """Return what differs: the first wrong row of each window, then rows out of place.

        Byte for byte over each window, and nothing of the device outside its windows.

        :raise KeyError: the map has no view called ``memory``.
        """
        views = {Space.MEMORY: memory_map.memory}
        if any(Space.PORTS in view.names for view in memory_map):
            views[Space.PORTS] = memory_map.ports
        found = [self._judge(window, views.get(window.space)) for window in self.windows]
        strays = [stray for space, view in views.items() for stray in self._strays(space, view)]
        return tuple(difference for difference in (*found, *strays) if difference is not None)

    def explain(self, memory_map: MemoryMap) -> str:
        """Return all differences in words, '' if there are none."""
        return "\n".join(difference.explain() for difference in self.compare(memory_map))

    def _judge(self, window: Window, view: FlatView | None) -> Difference | None:
        expected = self.rows_in(window)
        found = () if view is None else view.covering(window.range)
        for index, (want, have) in enumerate(zip_longest(expected, found)):
            summary, rule = self._difference(want, have)
            following = expected[index + 1] if index + 1 < len(expected) else None
            if want is not None and have is not None and following and want.runs_on(have):
                # What is wrong is that the next row does not begin inside the one found.
                summary = f"{following.name} does not begin at {following.range.start:#x}"
                want, rule = following, following.rule
            if summary:
                return Difference(summary, rule, window, want, have, expected, found, index)
        return None

    def _difference(self, want: ExpectedRow | None, have: Region | None) -> tuple[str, str]:
        if want is None:
            return "a row too many", PLACE_RULE
        if have is None:
            return "nothing answers there", want.rule
        if summary := want.difference(have):
            return summary, want.rule
        if want.mark_differs(have):
            with_mark, without = "marked KVM", "not marked KVM"
            a, b = (with_mark, without) if want.marked else (without, with_mark)
            return f"mark: expected {a}, found {b}", MARK_RULE
        if (
            self.device_id is not None
            and have.owner is not None
            and not have.owned_by(self.device_id)
        ):
            return f"owner: expected {self.device_id}, found {have.owner}", OWNER_RULE
        return "", ""

    def _strays(self, space: Space, view: FlatView) -> list[Difference]:
        windows = [window.range for window in self.windows if window.space is space]
        rule = PLACE_RULE if self.windows else DISABLED_RULE
        return [
            Difference("a row of the device where none may be", rule, None, None, row, (), (row,))
            for row in view.regions
            if self._is_ours(row) and not any(row.range.overlaps(window) for window in windows)
        ]

    def _is_ours(self, row: Region) -> bool:
        prefixes = (f"{self.name} BAR ", f"{self.name} base BAR ", f"vfio[{self.name}].rom")
        if row.name.startswith(prefixes):
            return True
        if self.vga and any(legacy.covers(row.range) for legacy in _LEGACY_VGA):
            return False
        return self.device_id is not None and row.owned_by(self.device_id)
