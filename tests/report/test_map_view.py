"""Tables and pictures of maps say the same without colours."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from harness.model.address import AddressRange
from harness.model.memory_map import FlatView, Kind, MemoryMap, Region
from harness.model.page_class import PageClass, PageRun
from harness.report.map_view import columns, map_lines, picture, row_lines, size_text

PAGE = 0x1000


def run(start: int, pages: int, page_class: PageClass) -> PageRun:
    return PageRun(AddressRange(start, pages * PAGE), page_class)


def plain(lines: list[Text]) -> list[str]:
    return [line.plain for line in lines]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (1, "0x1"),
        (0x810, "0x810"),
        (1024, "1 KiB"),
        (0x7000, "28 KiB"),
        (1 << 20, "1 MiB"),
        ((1 << 30) + 1024, "1048577 KiB"),
        (3 << 40, "3 TiB"),
        (1 << 50, "1 PiB"),
        (1 << 64, "16 EiB"),
    ],
)
def test_a_size_is_exact_in_its_largest_unit(size: int, text: str) -> None:
    assert size_text(size) == text


def test_each_class_has_its_letter() -> None:
    runs = [run(n * PAGE, 1, page_class) for n, page_class in enumerate(PageClass)]

    lines = plain(list(picture(runs, PAGE)))

    assert [page_class.value for page_class in PageClass] == [
        "absent",
        "trapped-table",
        "trapped-quirk",
        "mixed",
        "direct",
        "trapped-slow",
    ]
    assert lines[0] == "  0000000000000000 .TTM=T"


def test_a_large_window_is_drawn_in_groups_and_says_where_they_differ() -> None:
    runs = [
        run(0, 3, PageClass.DIRECT),
        run(3 * PAGE, 1, PageClass.TRAPPED_TABLE),
        run(4 * PAGE, 1020, PageClass.DIRECT),
    ]

    lines = plain(list(picture(runs, PAGE)))

    assert lines[0] == "  0000000000000000 +" + "=" * 63
    assert [line[:18] for line in lines[1:4]] == [
        "  0000000000100000",
        "  0000000000200000",
        "  0000000000300000",
    ]
    assert lines[4] == (
        "  each letter 16 KiB: = direct, T trapped, M mixed (traps too), . absent,"
        " + several of them"
    )
    assert len(lines) == 5


def test_a_window_that_is_no_multiple_of_the_group_is_drawn_to_its_end() -> None:
    lines = plain(list(picture([run(0, 257, PageClass.DIRECT)], PAGE)))

    assert "".join(line[19:] for line in lines[:-1]) == "=" * 129


def test_nothing_is_drawn_of_nothing() -> None:
    assert list(picture([], PAGE)) == []


def test_colours_only_repeat_the_letters() -> None:
    lines = list(picture([run(0, 1, PageClass.DIRECT), run(PAGE, 1, PageClass.MIXED)], PAGE))
    terminal, file = io.StringIO(), io.StringIO()

    Console(file=terminal, force_terminal=True, color_system="standard").print(lines[0])
    Console(file=file, force_terminal=False).print(lines[0])

    assert "\x1b[32m=" in terminal.getvalue()
    assert file.getvalue() == "  0000000000000000 =M\n"


def test_columns_that_are_empty_are_left_out() -> None:
    lines = plain(list(columns(("a", "long", "c"), [("1", "", "3"), ("22", "", "")])))

    assert lines == ["  a   c", "  1   3", "  22"]


def test_a_type_word_that_is_not_known_is_shown_as_printed() -> None:
    region = Region(AddressRange(0, 1), Kind.UNKNOWN, "a", word="guard", nonvolatile=True)

    assert "nv-guard" in plain(list(row_lines([region])))[1]


def test_a_map_without_memory_says_so() -> None:
    two = MemoryMap((FlatView((), "a", ()), FlatView((), "b", ())))

    assert plain(list(map_lines(two)))[-1] == "There is no address space 'memory' in this map."


def test_no_rows_are_no_empty_table() -> None:
    assert plain(list(row_lines([]))) == ["  no rows"]
