"""Pages are classed by all rows that touch them, as KVM maps them or does not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.address import AddressRange
from harness.model.memory_map import FlatView, Kind, Region
from harness.model.page_class import PageClass, page_runs

PAGE = 0x1000


def row(start: int, end: int, kind: Kind, name: str = "0000:03:00.0 BAR 0 mmaps[0]") -> Region:
    return Region(AddressRange.of(start, end), kind, name)


def view(*rows: Region) -> FlatView:
    return FlatView((), "system", rows)


def classify(rows: Sequence[Region], window: AddressRange, page: int = PAGE) -> list[PageClass]:
    """The class of each page, lowest first."""
    runs = page_runs(view(*rows), window, page)
    return [run.page_class for run in runs for _ in range(run.range.size // page)]


def classes(*rows: Region, window: tuple[int, int] = (0, 0x4000)) -> list[str]:
    return [found.value for found in classify(rows, AddressRange.of(*window))]


def test_whole_pages_of_one_ramd_row_are_direct() -> None:
    assert classes(row(0, 0x4000, Kind.RAMD)) == ["direct"] * 4


def test_plain_ram_is_direct_too() -> None:
    assert classes(row(0, 0x4000, Kind.RAM)) == ["direct"] * 4


def test_no_row_is_absent() -> None:
    assert classes() == ["absent"] * 4


@pytest.mark.parametrize("kind", [Kind.IO, Kind.ROM, Kind.ROMD, Kind.CONTAINER, Kind.UNKNOWN])
def test_every_other_kind_that_fills_the_page_is_slow(kind: Kind) -> None:
    assert classes(row(0, 0x4000, kind)) == ["trapped-slow"] * 4


def test_the_table_traps_its_own_page_and_the_rest_of_the_row_stays_direct() -> None:
    found = classes(
        row(0, 0x1000, Kind.RAMD),
        row(0x1000, 0x1090, Kind.IO, "msix-table"),
        row(0x1090, 0x4000, Kind.RAMD),
    )

    assert found == ["direct", "trapped-table", "direct", "direct"]


def test_the_pending_bits_count_as_table() -> None:
    found = classes(
        row(0, 0x3000, Kind.RAMD),
        row(0x3000, 0x3008, Kind.IO, "msix-pba"),
        row(0x3008, 0x4000, Kind.RAMD),
    )

    assert found == ["direct", "direct", "direct", "trapped-table"]


def test_a_quirk_window_traps_its_page_and_the_table_comes_first() -> None:
    quirk = "vfio-nvidia-bar0-88000-mirror-quirk"
    found = classes(
        row(0, 0x1000, Kind.IO, quirk),
        row(0x1000, 0x1100, Kind.IO, quirk),
        row(0x1100, 0x2000, Kind.RAMD),
        row(0x2000, 0x2010, Kind.IO, quirk),
        row(0x2010, 0x2020, Kind.IO, "msix-table"),
    )

    assert found == ["trapped-quirk", "trapped-quirk", "trapped-table", "absent"]


def test_two_ramd_rows_in_a_page_make_it_mixed() -> None:
    found = classes(row(0, 0x800, Kind.RAMD), row(0x800, 0x4000, Kind.RAMD, "other"))

    assert found == ["mixed", "direct", "direct", "direct"]


def test_a_row_and_a_hole_make_it_mixed() -> None:
    assert classes(row(0, 0x1800, Kind.RAMD)) == ["direct", "mixed", "absent", "absent"]


def test_a_neighbour_outside_a_window_smaller_than_a_page_counts() -> None:
    found = classes(
        row(0x2000, 0x2100, Kind.IO, "ours"),
        row(0x2100, 0x3000, Kind.IO, "not ours"),
        window=(0x2000, 0x2100),
    )

    assert found == ["mixed"]


def test_the_page_size_of_the_host_decides() -> None:
    rows = (row(0, 0x10000, Kind.IO, "slow"), row(0x10000, 0x14000, Kind.RAMD))
    window = AddressRange(0, 0x20000)

    assert classify(rows, window, 0x10000) == [PageClass.TRAPPED_SLOW, PageClass.MIXED]


def test_a_huge_window_costs_runs_not_pages() -> None:
    size = 1 << 50
    rows = (
        row(0, 0x2000, Kind.RAMD),
        row(0x2000, 0x2100, Kind.IO, "msix-table"),
        row(0x2100, size, Kind.RAMD),
    )

    found = page_runs(view(*rows), AddressRange(0, size), PAGE)

    assert [(run.range.start, run.page_class.value) for run in found] == [
        (0, "direct"),
        (0x2000, "trapped-table"),
        (0x3000, "direct"),
    ]


@pytest.mark.parametrize("page", [0, -4096, 3, 0x1800])
def test_a_page_size_that_is_no_power_of_two_is_refused(page: int) -> None:
    with pytest.raises(ValueError, match="page size"):
        page_runs(view(), AddressRange(0, 1), page)


def test_only_one_class_lets_no_access_leave_the_guest() -> None:
    assert [item for item in PageClass if item.is_direct] == [PageClass.DIRECT]


@given(
    st.lists(st.integers(1, 0x2800), max_size=8),
    st.lists(st.sampled_from([None, Kind.RAMD, Kind.IO]), min_size=8, max_size=8),
    st.integers(0, 0x5000),
    st.integers(1, 0x5000),
)
def test_runs_say_the_same_as_looking_at_each_page_alone(
    sizes: list[int], kinds: list[Kind | None], start: int, size: int
) -> None:
    rows, at = [], 0
    for length, kind in zip(sizes, kinds, strict=False):
        if kind is not None:
            rows.append(row(at, at + length, kind))
        at += length
    window = AddressRange(start, size)

    expected = []
    for page in window.pages(PAGE):
        inside = [item for item in rows if item.range.overlaps(page)]
        if not inside:
            expected.append(PageClass.ABSENT)
        elif len(inside) > 1 or not inside[0].range.covers(page):
            expected.append(PageClass.MIXED)
        else:
            direct = inside[0].kind is Kind.RAMD
            expected.append(PageClass.DIRECT if direct else PageClass.TRAPPED_SLOW)

    assert classify(rows, window) == expected
