"""Which words of a BAR to touch, to learn who serves each of its pages. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from harness.model.address import AddressRange
from harness.model.memory_map import FlatView
from harness.model.page_class import PageClass, page_runs
from harness.model.trap import TrapClass, predicted_class


def places_by_class(
    view: FlatView, window: AddressRange, *, in_page: int, page: int = 4096, most: int = 6
) -> Mapping[TrapClass, tuple[int, ...]]:
    """Return offsets inside *window* to read, by the class that *view* predicts for them.

    Pages filled by one row are sampled: first, last and evenly between, at most *most* of each
    run. Of any other page the first aligned word of each row and of each gap is taken, always.

    :param window: a BAR, whole pages.
    :param in_page: offset inside a page whose reading has no side effect.
    """
    found: dict[TrapClass, list[int]] = {}
    for run in page_runs(view, window, page):
        for start in _sampled(run.range, page, most):
            addresses = {start + in_page}
            if run.page_class not in (PageClass.DIRECT, PageClass.TRAPPED_SLOW):
                addresses = _edges(view, AddressRange(start, page))
            for address in sorted(addresses):
                served = predicted_class(view.regions, address, page)
                found.setdefault(served, []).append(address - window.start)
    return {served: tuple(offsets) for served, offsets in found.items()}


def _edges(view: FlatView, page: AddressRange) -> set[int]:
    """Return the first aligned word of each row and each gap in *page*."""
    rows = view.covering(page)
    points = {page.start, *(row.range.start for row in rows), *(row.range.end for row in rows)}
    return {point + -point % 4 for point in points if point + -point % 4 in page}


def _sampled(run: AddressRange, page: int, most: int) -> list[int]:
    count = run.size // page
    chosen = min(count, most)
    steps = {round(n * (count - 1) / max(1, chosen - 1)) for n in range(chosen)}
    return [run.start + step * page for step in sorted(steps)]
