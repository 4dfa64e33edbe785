"""Which words of a BAR to touch, to learn who serves each of its pages. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from harness.model.address import AddressRange
from harness.model.memory_map import FlatView
from harness.model.page_class import page_runs
from harness.model.trap import TrapClass, predicted_class


def places_by_class(
    view: FlatView, window: AddressRange, *, in_page: int, page: int = 4096, most: int = 6
) -> Mapping[TrapClass, tuple[int, ...]]:
    """Return offsets inside *window* to read, by the class that *view* predicts for them.

    Pages filled by one row are sampled: first, last and evenly between, at most *most* of each
    run. In a page of several rows the first aligned word of each is taken, always.

    :param window: a BAR, whole pages.
    :param in_page: offset inside a page whose reading has no side effect.
    """
    found: dict[TrapClass, list[int]] = {}
    for run in page_runs(view, window, page):
        starts = _sampled(run.range, page, most)
        for start in starts:
            here = AddressRange(start, page)
            rows = view.covering(here)
            addresses = [start + in_page]
            if len(rows) > 1:
                addresses = [max(start, row.range.start + -row.range.start % 4) for row in rows]
            for address in addresses:
                served = predicted_class(view.regions, address, page)
                found.setdefault(served, []).append(address - window.start)
    return {served: tuple(offsets) for served, offsets in found.items()}


def _sampled(run: AddressRange, page: int, most: int) -> list[int]:
    count = run.size // page
    chosen = min(count, most)
    steps = {round(n * (count - 1) / max(1, chosen - 1)) for n in range(chosen)}
    return [run.start + step * page for step in sorted(steps)]
