"""Option sets chosen pairwise: every pair is there, and they are few."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.combinations import ALL, BadStrength, Strength, combine, missing, together

OPTIONS = st.dictionaries(
    st.sampled_from("abcdefg"),
    st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True),
    min_size=2,
    max_size=4,
)
Options = Mapping[str, list[int]]


@given(OPTIONS)
def test_every_pair_comes_together(options: Options) -> None:
    assert not missing(options, combine(options))


@given(OPTIONS, st.integers(1, 3))
def test_every_strength_is_kept(options: Options, count: int) -> None:
    rows = combine(options, Strength(count))

    assert not missing(options, rows, Strength(count))


@given(OPTIONS)
def test_a_set_has_one_of_the_values_of_each_option(options: Options) -> None:
    for row in combine(options):
        assert row.keys() == options.keys()
        assert all(row[name] in values for name, values in options.items())


@given(OPTIONS)
def test_they_are_the_same_each_time_and_none_is_there_twice(options: Options) -> None:
    rows = combine(options)

    assert rows == combine(options)
    assert len({tuple(row.items()) for row in rows}) == len(rows)


@given(OPTIONS)
def test_the_first_set_has_the_first_of_each(options: Options) -> None:
    assert combine(options)[0] == {name: values[0] for name, values in options.items()}


@given(OPTIONS)
def test_all_are_all(options: Options) -> None:
    rows = combine(options, Strength(ALL))

    assert len(rows) == math.prod(map(len, options.values()))


@given(st.integers(4, 9))
def test_they_are_few(count: int) -> None:
    options = {str(number): (False, True) for number in range(count)}

    assert len(combine(options)) <= 2 * count.bit_length() + 4 < 2**count


@given(OPTIONS)
def test_what_cannot_be_is_not_there_and_the_rest_is(options: Options) -> None:
    first, second = list(options)[:2]

    def possible(row: Mapping[str, int]) -> bool:
        return not (row.get(first) == options[first][0] and row.get(second) == options[second][0])

    rows = combine(options, possible=possible)

    assert all(possible(row) for row in rows)
    assert not missing(options, rows, possible=possible)


def test_a_pair_that_is_missing_is_told() -> None:
    options = {"a": [0, 1], "b": [0, 1]}

    assert missing(options, combine(options)[1:]) == [(("a", 0), ("b", 0))]


def test_pairs_that_come_together_do_not_depend_on_the_order_of_names() -> None:
    assert together([{"a": 1, "b": 2}]) == together([{"b": 2, "a": 1}])


@pytest.mark.parametrize("options", [{}, {"a": [1], "b": []}])
def test_nothing_to_choose_from_gives_nothing(options: Options) -> None:
    assert combine(options) == []


@pytest.mark.parametrize(
    ("text", "count"), [("", 2), ("pairs", 2), ("all", ALL), ("1", 1), ("3", 3)]
)
def test_a_strength_is_read(text: str, count: int) -> None:
    assert Strength.parse(text).count == count


@pytest.mark.parametrize("text", ["0", "-1", "many", "2.0", "٢"])
def test_what_is_no_strength_is_told(text: str) -> None:
    with pytest.raises(BadStrength, match="pairs, all, or a number"):
        Strength.parse(text)
