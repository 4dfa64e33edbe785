"""Medians, their spread, and how sure a ratio of paired measurements is. Pure.

Measurements come in rounds; in a round every subject is measured once. What drifts (a busy
computer, a warm cache) hits all of a round alike, so a ratio is taken within each round and
the median of those ratios is the result. Its interval is between two of the sorted ratios,
which is exact whatever the distribution is (order statistics, as in the sign test).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

WANTED_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Spread:
    """Some measurements of one thing."""

    count: int
    median: float
    mad: float
    """Median absolute deviation from the median, as it is (not scaled to a normal's sigma)."""
    quartiles: tuple[float, float]
    """Lower and upper, linear between measurements."""
    range: tuple[float, float]
    """Least and greatest."""


@dataclass(frozen=True, slots=True)
class PairedRatio:
    """How many times the other a thing is, from measurements in the same rounds."""

    ratio: float
    """Median of the ratios of the rounds."""
    low: float
    high: float
    confidence: float
    """Probability that the true median lies from *low* to *high*; with less than six rounds
    it cannot reach 0.95."""
    of_medians: float
    """Ratio of the two medians, for comparison."""


@dataclass(frozen=True, slots=True)
class Slope:
    """A straight line through points: what one more costs."""

    each: float
    start: float


def spread(values: Sequence[float]) -> Spread:
    """Return what *values* have in common.

    :raise ValueError: there are none.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("nothing was measured")
    middle = median(ordered)
    return Spread(
        count=len(ordered),
        median=middle,
        mad=median(abs(value - middle) for value in ordered),
        quartiles=(quantile(ordered, 0.25), quantile(ordered, 0.75)),
        range=(ordered[0], ordered[-1]),
    )


def quantile(ordered: Sequence[float], part: float) -> float:
    """Return the *part* quantile of sorted values, linear between neighbours."""
    at = part * (len(ordered) - 1)
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    low, high = ordered[below], ordered[above]
    return min(max(low + (high - low) * (at - below), low), high)


def paired_ratio(
    numerators: Sequence[float],
    denominators: Sequence[float],
    *,
    wanted: float = WANTED_CONFIDENCE,
) -> PairedRatio:
    """Return the ratio of two series that were measured in the same rounds.

    :param wanted: the narrowest interval that reaches this confidence is taken, or the whole
        range if none does.
    :raise ValueError: they are empty, of different lengths, or something took no time.
    """
    if len(numerators) != len(denominators) or not numerators:
        raise ValueError("a ratio needs both measured in the same rounds")
    if min(denominators) <= 0:
        raise ValueError("cannot divide by a measurement of zero")
    ratios = sorted(a / b for a, b in zip(numerators, denominators, strict=True))
    rank, confidence = interval_rank(len(ratios), wanted)
    return PairedRatio(
        ratio=median(ratios),
        low=ratios[rank],
        high=ratios[-1 - rank],
        confidence=confidence,
        of_medians=median(numerators) / median(denominators),
    )


def interval_rank(count: int, wanted: float) -> tuple[int, float]:
    """Return how many values to leave out at each end, and the confidence of what is between.

    The median is below the k+1st of n sorted values with probability P[Binomial(n, ½) ≤ k].
    """
    best = (0, _coverage(count, 0))
    for rank in range(1, (count + 1) // 2):
        confidence = _coverage(count, rank)
        if confidence < wanted:
            break
        best = (rank, confidence)
    return best


def _coverage(count: int, rank: int) -> float:
    outside = sum(math.comb(count, below) for below in range(rank + 1))
    return max(0.0, 1 - 2 * outside / float(2**count))


def slope(points: Sequence[tuple[float, float]]) -> Slope:
    """Return the line through *points* by Theil and Sen: the median of all slopes in pairs.

    :raise ValueError: there are not two different places.
    """
    slopes = [
        (y2 - y1) / (x2 - x1)
        for at, (x1, y1) in enumerate(points)
        for x2, y2 in points[at + 1 :]
        if x2 != x1
    ]
    if not slopes:
        raise ValueError("a slope needs measurements at two places")
    each = median(slopes)
    return Slope(each, median(y - each * x for x, y in points))
