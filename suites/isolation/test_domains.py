"""Two devices, each in a domain of its own: one IOVA, two pages."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from harness.guest.dma_engine import DmaEngine
from harness.guest.vfio_driver import Given
from harness.lab.grounds import Grounds, Plot
from harness.testing import must_fail
from suites.isolation.checks import IOVA, WORD, check_reached, give
from suites.isolation.conftest import CORE, PAIRED, on

OTHER = {"edu": "nvme", "nvme": "edu", "emulated": "nvme"}
"""Who shares a ground with whom."""


@dataclass(frozen=True)
class Pair:
    """Two devices, and the page that each has at the same IOVA."""

    one: DmaEngine
    other: DmaEngine
    page_of_one: Given
    page_of_other: Given


@pytest.fixture
def pair(plot: Plot, engine: DmaEngine, grounds: Grounds) -> Iterator[Pair]:
    """The device of the plot, and another one on the same ground, in two domains."""
    other = grounds.plot(plot.ground, OTHER[plot.device])
    with other.engine() as second:
        yield Pair(engine, second, give(engine), give(second))


@on(*CORE)
@pytest.mark.rule("ISO-11")
def test_each_reaches_its_own(pair: Pair) -> None:
    """The page of who writes changes, after the other one has used the same IOVA."""
    pair.other.write(IOVA + 0x100, WORD)

    pair.one.write(IOVA, WORD)

    check_reached(pair.one, pair.page_of_one)


@on(*PAIRED)
@pytest.mark.rule("ISO-11")
def test_none_reaches_that_of_the_other(pair: Pair) -> None:
    """The page of the other one does not change."""
    pair.other.write(IOVA, WORD)

    pair.one.write(IOVA + 0x100, WORD)

    check_reached(pair.other, pair.page_of_other)


@on("L1-strict-edu", "L1-strict-nvme")
@pytest.mark.negative_control("ISO-11")
def test_both_writes_to_one_page_are_noticed(pair: Pair) -> None:
    """Where both writes reach the page, as they would in one domain, the check fails."""
    pair.one.write(IOVA + 0x100, WORD)

    pair.one.write(IOVA, WORD)

    with must_fail():
        check_reached(pair.one, pair.page_of_one)
