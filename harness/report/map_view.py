"""Memory maps for people: tables of rows, and pictures of BARs page by page.

Everything is lines of `rich.text.Text`; colours only repeat what letters say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from harness.model.address import AddressRange
from harness.model.device_windows import DeviceWindow, device_rows
from harness.model.memory_map import FlatView, MemoryMap, Owner, Region
from harness.model.memory_tree import MemoryTree
from harness.model.page_class import PageClass, PageRun, page_runs

PICTURE_WIDTH: Final = 64
PICTURE_CHARACTERS: Final = 256
SEVERAL: Final = "+"
_LETTER: Final = {
    PageClass.DIRECT: "=",
    PageClass.TRAPPED_TABLE: "T",
    PageClass.TRAPPED_QUIRK: "T",
    PageClass.TRAPPED_SLOW: "T",
    PageClass.MIXED: "M",
    PageClass.ABSENT: ".",
}
_STYLE: Final = {"=": "green", "T": "yellow", "M": "magenta", ".": "dim", SEVERAL: "cyan"}
_LEGEND: Final = "= direct, T trapped, M mixed (traps too), . absent"


@dataclass(frozen=True, slots=True)
class WindowReport:
    """One BAR or window of a device with all that answers in it."""

    window: DeviceWindow
    rows: tuple[Region, ...]
    """Every row that has a byte in the window, also rows of others; uncut."""
    runs: tuple[PageRun, ...]
    """Classes of its pages; empty for ports, where every access traps."""
    strangers: tuple[Region, ...]
    """Those of ``rows`` which neither owner nor name give to the device."""


def window_report(view: FlatView, window: DeviceWindow, device: str, page: int) -> WindowReport:
    """Return what is in *window*; *view* is the one the window was found in."""
    rows = view.covering(window.range)
    own = set(device_rows(view, device))
    strangers = tuple(row for row in rows if row not in own and row.owner is not None)
    runs = () if window.port else page_runs(view, window.range, page)
    return WindowReport(window, rows, runs, strangers)


def size_text(size: int) -> str:
    """Return a size in the largest unit that leaves no remainder: ``16 KiB``, ``0x810``."""
    if size % 1024:
        return f"{size:#x}"
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        size //= 1024
        if size % 1024:
            return f"{size} {unit}"
    return f"{size // 1024} EiB"


def columns(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[Text]:
    """Yield a header line and one line per row, columns aligned, empty columns left out."""
    table = [list(row) for row in rows]
    used = [n for n in range(len(header)) if any(row[n] for row in table)]
    widths = {n: max(len(header[n]), *(len(row[n]) for row in table)) for n in used}

    def line(row: Sequence[str]) -> str:
        return ("  " + "  ".join(row[n].ljust(widths[n]) for n in used)).rstrip()

    yield Text(line(header), style="bold")
    for row in table:
        yield Text(line(row))


def _owner_text(owner: Owner | None) -> str:
    return "" if owner is None else owner.value


def row_lines(rows: Sequence[Region]) -> Iterator[Text]:
    """Yield the table of *rows*: who answers where, of what kind, with a KVM slot or not."""
    if not rows:
        yield Text("  no rows", style="dim")
        return
    header = ("range", "size", "kind", "KVM", "name", "offset", "owner")
    yield from columns(
        header,
        (
            (
                str(row.range),
                size_text(row.range.size),
                ("nv-" if row.nonvolatile else "") + (row.word or row.kind.value),
                "KVM" if row.in_kvm else "",
                row.name,
                f"@{row.offset:#x}" if row.offset else "",
                _owner_text(row.owner),
            )
            for row in rows
        ),
    )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _counted(names: Iterable[str]) -> str:
    counts = Counter(names)
    return ", ".join(f"{name} x{n}" if n > 1 else name for name, n in counts.items()) or "(none)"


def map_lines(memory_map: MemoryMap) -> Iterator[Text]:
    """Yield the summary of all views, then the rows of guest physical memory."""
    yield Text(_number(len(memory_map.views), "flat view"), style="bold underline")
    yield from columns(
        ("rows", "in KVM", "root", "address spaces"),
        (
            (
                str(len(view.regions)),
                str(sum(row.in_kvm for row in view.regions)),
                "(none)" if view.root is None else view.root,
                _counted(space.name for space in view.spaces),
            )
            for view in memory_map
        ),
    )
    shown = next((view for view in memory_map if "memory" in view.names), None)
    if shown is None and len(memory_map.views) == 1:
        shown = memory_map.views[0]
    yield Text()
    if shown is None:
        yield Text("There is no address space 'memory' in this map.")
        return
    title = ", ".join(sorted(shown.names)) or "the only view"
    yield Text(f"{title}: {_number(len(shown.regions), 'row')}", style="bold underline")
    yield from row_lines(shown.regions)


def tree_lines(tree: MemoryTree) -> Iterator[Text]:
    """Yield the summary of the tree form, and the BARs of assigned devices."""
    yield Text(_number(len(tree.blocks), "tree"), style="bold underline")
    yield from columns(
        ("regions", "disabled", "tree of"),
        (
            (
                str(sum(1 for _ in block.walk())),
                str(sum(node.disabled for node in block.walk())),
                _counted(block.spaces) if block.spaces else block.region or "(excerpt)",
            )
            for block in tree.blocks
        ),
    )
    windows = tree.bar_windows()
    if windows:
        yield Text()
        yield Text("BARs of assigned devices", style="bold underline")
        yield from columns(
            ("range", "size", "device", "BAR"),
            (
                (str(one.range), size_text(one.range.size), one.device, str(one.bar))
                for one in windows
            ),
        )
    yield Text()
    yield Text("A tree does not tell who answers at an address; 'info mtree -f -o' does.")


def _letters(runs: Sequence[PageRun], span: AddressRange, step: int) -> str:
    """Return one letter per *step* bytes of *span*; runs and span begin together."""
    letters, at = [], 0
    for start in range(span.start, span.end, step):
        end = min(start + step, span.end)
        seen = set()
        while True:
            seen.add(_LETTER[runs[at].page_class])
            if runs[at].range.end >= end:
                break
            at += 1
        if runs[at].range.end == end:
            at += 1
        letters.append(seen.pop() if len(seen) == 1 else SEVERAL)
    return "".join(letters)


def picture(runs: Sequence[PageRun], page: int) -> Iterator[Text]:
    """Yield the picture of a window: a letter per page, or per group of pages if many.

    :param runs: of neighbouring pages, as `page_runs` gives them.
    """
    if not runs:
        return
    span = AddressRange.of(runs[0].range.start, runs[-1].range.end)
    group = 1
    while span.size > group * page * PICTURE_CHARACTERS:
        group *= 2
    step = group * page
    letters = _letters(runs, span, step)
    for start in range(0, len(letters), PICTURE_WIDTH):
        line = Text(f"  {span.start + start * step:016x} ")
        for letter in letters[start : start + PICTURE_WIDTH]:
            line.append(letter, style=_STYLE[letter])
        yield line
    each = f"each letter {size_text(step)}"
    several = f", {SEVERAL} several of them" if SEVERAL in letters else ""
    yield Text(f"  {each}: {_LEGEND}{several}", style="dim")


def _counts(runs: Sequence[PageRun], page: int) -> str:
    pages: Counter[PageClass] = Counter()
    for run in runs:
        pages[run.page_class] += run.range.size // page
    named = ", ".join(f"{pages[kind]} {kind.value}" for kind in PageClass if pages[kind])
    return f"pages of {size_text(page)}: {named}"


def device_lines(device: str, reports: Sequence[WindowReport], page: int) -> Iterator[Text]:
    """Yield, for each window of *device*, its rows and its picture."""
    if not reports:
        yield Text(f"{device} has no rows in this map.")
    for number, report in enumerate(reports):
        if number:
            yield Text()
        window = report.window
        space = "ports, " if window.port else ""
        yield Text(
            f"{device} {window.label}: {space}{window.range}, {size_text(window.range.size)}",
            style="bold underline",
        )
        yield from row_lines(report.rows)
        for row in report.strangers:
            yield Text(f"  note: {row.name} at {row.range} is not of {device}")
        if window.port:
            yield Text("  I/O ports: every access traps")
        else:
            yield Text(f"  {_counts(report.runs, page)}")
            yield from picture(report.runs, page)
