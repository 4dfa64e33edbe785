"""What a guest access to a page of a window meets: the device, or QEMU.

KVM maps whole host pages. A page that one RAM-like row fills is direct; everything else in
guest memory leaves the guest on each access, whatever the rows in it say.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from harness.model.address import AddressRange
from harness.model.memory_map import FlatView, Region

MSIX_NAMES = frozenset({"msix-table", "msix-pba"})
QUIRK_SUFFIX = "-quirk"


class PageClass(enum.Enum):
    """What answers in one page. Where several fit, the first of this list that fits is it,
    except that `DIRECT` and `TRAPPED_SLOW` need one row that fills the page.
    """

    ABSENT = "absent"
    """No row touches the page."""
    TRAPPED_TABLE = "trapped-table"
    """Part of an MSI-X table or PBA is in the page (the rest of the page traps with it)."""
    TRAPPED_QUIRK = "trapped-quirk"
    """A quirk window is in the page (the rest of the page traps with it)."""
    MIXED = "mixed"
    """Several rows share the page, or one row leaves part of it empty."""
    DIRECT = "direct"
    """One ``ramd`` or ``ram`` row fills the page: no trap, neither on read nor on write."""
    TRAPPED_SLOW = "trapped-slow"
    """One row of another kind fills the page. ``rom`` and ``romd`` are here too: their
    writes trap although their reads do not."""

    @property
    def is_direct(self) -> bool:
        """Say whether no access to the page leaves the guest."""
        return self is PageClass.DIRECT


@dataclass(frozen=True, slots=True)
class PageRun:
    """Neighbouring pages of one class; ``range`` is whole pages."""

    range: AddressRange
    page_class: PageClass


def _classify(rows: tuple[Region, ...], page: AddressRange) -> PageClass:
    if not rows:
        return PageClass.ABSENT
    if any(row.name in MSIX_NAMES for row in rows):
        return PageClass.TRAPPED_TABLE
    if any(row.name.endswith(QUIRK_SUFFIX) for row in rows):
        return PageClass.TRAPPED_QUIRK
    if len(rows) > 1 or not rows[0].range.covers(page):
        return PageClass.MIXED
    return PageClass.DIRECT if rows[0].kind.is_direct else PageClass.TRAPPED_SLOW


def _runs(view: FlatView, window: AddressRange, page: int) -> Iterator[PageRun]:
    """Yield runs that may have equal neighbours: one per stretch no row begins or ends in."""
    first = window.start - window.start % page
    end = window.end + -window.end % page
    whole = AddressRange.of(first, end)
    cuts = {first, end}
    for row in view.covering(whole):
        for edge in (row.range.start, row.range.end):
            cuts |= {edge - edge % page, edge + -edge % page}
    points = sorted(cut for cut in cuts if first <= cut <= end)
    for start, stop in pairwise(points):
        sample = AddressRange(start, page)
        rows = view.covering(sample)
        yield PageRun(AddressRange.of(start, stop), _classify(rows, sample))


def page_runs(view: FlatView, window: AddressRange, page: int) -> tuple[PageRun, ...]:
    """Return the classes of all pages that *window* touches, neighbours joined.

    The work does not grow with the size of the window, only with its number of rows.

    :param page: bytes, the page size of the host (KVM slots are made of host pages).
    :raise ValueError: *page* is not a power of two.
    """
    if page <= 0 or page & (page - 1):
        raise ValueError(f"not a page size (a power of two): {page:#x}")
    joined: list[PageRun] = []
    for run in _runs(view, window, page):
        if joined and joined[-1].page_class is run.page_class:
            run = PageRun(AddressRange.of(joined.pop().range.start, run.range.end), run.page_class)
        joined.append(run)
    return tuple(joined)
