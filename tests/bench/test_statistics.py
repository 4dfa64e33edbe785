"""Medians, spreads and ratios: what must hold for any measurements."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.bench.statistics import (
    interval_rank,
    paired_ratio,
    quantile,
    slope,
    spread,
)

times = st.floats(min_value=1e-6, max_value=1e6)
series = st.lists(times, min_size=1, max_size=30)
pairs = st.lists(st.tuples(times, times), min_size=1, max_size=30)


@given(series)
def test_the_spread_is_ordered_and_within_the_range(values: list[float]) -> None:
    found = spread(values)

    low, high = found.quartiles
    assert found.range[0] <= low <= found.median <= high <= found.range[1]
    assert found.median == statistics.median(values)
    assert 0 <= found.mad <= found.range[1] - found.range[0]
    assert found.count == len(values)


@given(series, st.floats(min_value=1e-3, max_value=1e3))
def test_the_spread_scales_with_the_unit(values: list[float], factor: float) -> None:
    scaled = spread([value * factor for value in values])

    assert math.isclose(scaled.median, spread(values).median * factor, rel_tol=1e-9)
    assert math.isclose(scaled.mad, spread(values).mad * factor, rel_tol=1e-6, abs_tol=1e-6)


@given(series)
def test_one_wild_measurement_of_many_moves_the_median_within_the_others(
    values: list[float],
) -> None:
    calm = [*values, *values]

    assert min(values) <= spread([*calm, 1e12]).median <= max(values)


def test_nothing_measured_has_no_spread() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        spread([])


@pytest.mark.parametrize(("part", "value"), [(0, 1.0), (0.25, 2.0), (0.5, 3.0), (1, 5.0)])
def test_quantiles_are_linear_between_neighbours(part: float, value: float) -> None:
    assert quantile([1.0, 2.0, 3.0, 4.0, 5.0], part) == value


@given(pairs)
def test_the_ratio_lies_in_its_interval_and_the_interval_in_the_range(
    measured: list[tuple[float, float]],
) -> None:
    found = paired_ratio([a for a, _ in measured], [b for _, b in measured])

    ratios = [a / b for a, b in measured]
    assert min(ratios) <= found.low <= found.ratio <= found.high <= max(ratios)
    assert 0 <= found.confidence <= 1


@given(pairs)
def test_the_ratio_the_other_way_round_is_the_inverse(
    measured: list[tuple[float, float]],
) -> None:
    ours, theirs = [a for a, _ in measured], [b for _, b in measured]
    there, back = paired_ratio(ours, theirs), paired_ratio(theirs, ours)

    assert math.isclose(there.low, 1 / back.high, rel_tol=1e-9)
    assert math.isclose(there.high, 1 / back.low, rel_tol=1e-9)
    assert there.confidence == back.confidence


@given(pairs, st.lists(st.floats(min_value=0.1, max_value=10), min_size=30, max_size=30))
def test_what_slows_a_whole_round_does_not_move_the_ratio(
    measured: list[tuple[float, float]], slowness: list[float]
) -> None:
    calm = paired_ratio([a for a, _ in measured], [b for _, b in measured])
    slow = paired_ratio(
        [a * by for (a, _), by in zip(measured, slowness, strict=False)],
        [b * by for (_, b), by in zip(measured, slowness, strict=False)],
    )

    assert math.isclose(calm.ratio, slow.ratio, rel_tol=1e-9)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [([], []), ([1.0], [1.0, 2.0]), ([1.0], [0.0])],
    ids=["none", "odd", "zero"],
)
def test_a_ratio_needs_pairs_and_something_to_divide_by(
    ours: list[float], theirs: list[float]
) -> None:
    with pytest.raises(ValueError):
        paired_ratio(ours, theirs)


@pytest.mark.parametrize("count", range(1, 16))
def test_the_confidence_is_that_of_fair_coins(count: int) -> None:
    rank, confidence = interval_rank(count, 0.9)

    # The median is outside if at most `rank` of the values are on one side of it.
    flips = [sum(coins) for coins in itertools.product((0, 1), repeat=min(count, 12))]
    inside = sum(rank < heads < count - rank for heads in flips) / len(flips)
    assert count > 12 or math.isclose(confidence, inside)
    assert rank == 0 or confidence >= 0.9


@given(st.floats(-100, 100), st.floats(-100, 100), st.sets(st.integers(0, 50), min_size=2))
def test_the_slope_of_a_line_is_that_of_the_line(
    each: float, start: float, places: set[int]
) -> None:
    found = slope([(x, start + each * x) for x in places])

    assert math.isclose(found.each, each, abs_tol=1e-6)
    assert math.isclose(found.start, start, abs_tol=1e-4)


def test_one_outlier_does_not_bend_the_slope() -> None:
    assert slope([(1, 1), (2, 2), (4, 4), (8, 100), (6, 6)]).each == 1


def test_a_slope_needs_two_places() -> None:
    with pytest.raises(ValueError, match="two places"):
        slope([(1, 1), (1, 2)])
