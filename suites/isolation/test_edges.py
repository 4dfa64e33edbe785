"""DMA inside a mapping, at its edges and beside it, seen byte by byte."""

import pytest

from harness.guest.canary import canary
from harness.guest.dma_engine import QUIET, SECRET, DmaEngine
from harness.guest.edu import Edu
from harness.guest.stray import stray_write
from harness.guest.vfio_driver import PAGE, Given
from harness.lab.grounds import Grounds, Plot
from harness.testing import must_fail
from suites.isolation.checks import (
    IOVA,
    WORD,
    check_intact,
    check_not_got,
    check_only,
    check_untouched,
    give,
)
from suites.isolation.conftest import CONTROLS, CORE, DEFAULT, EVERYWHERE, at, on

BEFORE, BEHIND = IOVA - PAGE, IOVA + PAGE
INSIDE = {"first": 0, "middle": 0x800, "last": PAGE - WORD}
BESIDE = {"before": -WORD, "behind": PAGE, "far": 0x4000_0000}
ACROSS = {"start": -4, "end": PAGE - 4}
"""Where a word is written, from the start of the page."""


@pytest.fixture
def given(engine: DmaEngine) -> Given:
    """A page that the device was given."""
    return give(engine)


def where(places: dict[str, int]) -> pytest.MarkDecorator:
    """Repeat the test for these places."""
    return pytest.mark.parametrize("offset", places.values(), ids=places.keys())


# -- inside -----------------------------------------------------------------------------------


@at(INSIDE, rest="last")
@pytest.mark.rule("ISO-01")
def test_what_is_inside_is_reached(engine: DmaEngine, given: Given, offset: int) -> None:
    """A word written inside of a mapping changes its bytes, the first and last of it included."""
    engine.write(IOVA + offset, WORD)

    check_only(engine, given, offset, offset + WORD - 1)


@on(*CONTROLS)
@pytest.mark.negative_control("ISO-01")
def test_a_byte_more_is_noticed(engine: DmaEngine, given: Given) -> None:
    """The check fails if more was written."""
    engine.write(IOVA, WORD + 4)

    with must_fail():
        check_only(engine, given, 0, WORD - 1)


# -- beside -----------------------------------------------------------------------------------


@at(BESIDE, rest="behind")
@pytest.mark.rule("ISO-02")
def test_what_is_beside_is_not_reached(engine: DmaEngine, given: Given, offset: int) -> None:
    """A word written just before a mapping, just behind it or far from it goes nowhere."""
    engine.write(IOVA + offset, WORD)

    check_untouched(engine, given)


@on(*CONTROLS)
@where({"before": -WORD, "behind": PAGE})
@pytest.mark.negative_control("ISO-02")
def test_what_is_mapped_beside_is_noticed(engine: DmaEngine, given: Given, offset: int) -> None:
    """The same write changes a page that is mapped there, and the check fails."""
    neighbour = engine.driver.give((IOVA + offset) & -PAGE, fill=QUIET)
    engine.write(IOVA + offset, WORD)

    with must_fail():
        check_untouched(engine, neighbour)


# -- across an edge ---------------------------------------------------------------------------


def check_inside_only(engine: DmaEngine, given: Given) -> None:
    """Nothing but bytes of the page itself changed, if any."""
    changed = engine.driver.changed(given)
    assert changed is None or (changed.first >= 0 and changed.last < PAGE), changed


@at(ACROSS, rest="end")
@pytest.mark.rule("ISO-03")
def test_what_hangs_over_is_cut(engine: DmaEngine, given: Given, offset: int) -> None:
    """Of a word across the edge of a mapping the part outside goes nowhere."""
    engine.write(IOVA + offset, WORD)

    check_inside_only(engine, given)


@on("L1-pt-nvme")
@pytest.mark.negative_control("ISO-03")
def test_what_is_not_cut_is_noticed(
    plot: Plot, engine: DmaEngine, given: Given, grounds: Grounds
) -> None:
    """A function that is passed through writes across the edge of the page in physical memory."""
    other = grounds.plot(plot.ground, "edu")
    with other.undriven():
        stray_write(other.system, other.bdf, given.physical + PAGE - 2)

    with must_fail():
        check_inside_only(engine, given)


@pytest.mark.full
@pytest.mark.negative_control("ISO-03")
def test_a_word_across_without_an_iommu_is_noticed(bare_edu: Edu) -> None:
    """Where no IOMMU is, the part of the word that hangs over reaches the next page."""
    with canary(bare_edu.system) as page:
        bare_edu.poke(page.address - 4, 0x6261_6421_6261_6421)

        with must_fail():
            check_intact(page)


# -- memory of somebody else ------------------------------------------------------------------


@on(*EVERYWHERE, always=DEFAULT)
@pytest.mark.rule("ISO-04", "NST-20")
def test_a_bystander_is_not_reached(plot: Plot, engine: DmaEngine, given: Given) -> None:
    """Memory of another process is not written, though the device is told its true address."""
    with canary(plot.system) as page:
        engine.write(page.address, WORD)

        check_intact(page)
    check_untouched(engine, given)


@pytest.mark.full
@pytest.mark.negative_control("ISO-04", "NST-20")
def test_a_bystander_without_an_iommu_is_noticed(bare_edu: Edu) -> None:
    """On a host without an IOMMU the same write changes it."""
    with canary(bare_edu.system) as page:
        bare_edu.poke(page.address, 0x6261_6421)

        with must_fail():
            check_intact(page)


# -- reading ----------------------------------------------------------------------------------


@on(*CORE)
@pytest.mark.rule("ISO-05")
def test_a_bystander_is_not_read(plot: Plot, engine: DmaEngine) -> None:
    """What is in memory of another process the device does not get."""
    with canary(plot.system, value=SECRET) as page:
        check_not_got(engine, page.address)


@on(*CONTROLS)
@pytest.mark.negative_control("ISO-05")
def test_what_is_mapped_is_read(engine: DmaEngine) -> None:
    """The device gets what is in a page that is mapped, and the check fails."""
    engine.driver.give(IOVA)
    engine.driver.put(IOVA, SECRET.to_bytes(8, "little"))

    with must_fail():
        check_not_got(engine, IOVA)
