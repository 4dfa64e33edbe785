"""Mappings that a device may read and not write, or write and not read."""

import pytest

from harness.guest.dma_engine import GOT, SECRET, DmaEngine
from harness.lab.grounds import Plot
from harness.testing import must_fail, skip
from suites.isolation.checks import (
    IOVA,
    WORD,
    check_not_got,
    check_reached,
    check_untouched,
    give,
)
from suites.isolation.conftest import CONTROLS, CORE, DEFAULT, EVERYWHERE, on

WRITE_ONLY = tuple(place for place in EVERYWHERE if place.startswith("L1-"))
"""What a guest maps so, its QEMU maps for both."""


@on(*EVERYWHERE, always=DEFAULT)
@pytest.mark.rule("ISO-06")
def test_what_may_be_read_is_not_written(engine: DmaEngine) -> None:
    """A page that is mapped for reading does not change."""
    page = give(engine, access="r")

    engine.write(IOVA, WORD)

    check_untouched(engine, page)


@on(*CONTROLS)
@pytest.mark.negative_control("ISO-06")
def test_what_may_be_written_is_noticed(engine: DmaEngine) -> None:
    """The same write changes a page that is mapped for both, and the check fails."""
    page = give(engine)

    engine.write(IOVA, WORD)

    with must_fail():
        check_untouched(engine, page)


def check_got(engine: DmaEngine) -> None:
    """The device reads what is in the page."""
    got = engine.read(IOVA)
    assert got == GOT, f"the device got {got:#x}"


def give_secret(engine: DmaEngine, access: str) -> None:
    """Map a page with something to be read in it."""
    engine.driver.give(IOVA, access=access)
    engine.driver.put(IOVA, SECRET.to_bytes(8, "little"))


@on(*CORE)
@pytest.mark.rule("ISO-06")
def test_what_may_be_read_is_read(engine: DmaEngine) -> None:
    """The device gets what is in a page that is mapped for reading."""
    give_secret(engine, "r")

    check_got(engine)


@on(*CONTROLS)
@pytest.mark.negative_control("ISO-06")
def test_what_is_not_mapped_is_not_got(engine: DmaEngine) -> None:
    """What is not mapped the device does not get, and the check fails."""
    give_secret(engine, "r")
    engine.driver.unmap(IOVA)

    with must_fail():
        check_got(engine)


FIRST_STAGE = 1 << 47
"""VT-d 10.4.3: ECAP.FSTS. Its entries cannot keep a device from reading; Linux prefers them."""


def has_vtd(plot: Plot) -> bool:
    """Say whether the host has VT-d."""
    return plot.owner.exists("/sys/class/iommu/dmar0")


@pytest.fixture
def makes_readable(plot: Plot) -> None:
    """The host has VT-d, and a Linux that makes no entry of it for writing only."""
    linux = plot.owner.kernel
    if not has_vtd(plot) or not linux.has(5, 13) or linux.has(6, 16):
        skip(
            "is about VT-d under Linux 5.13 to 6.15",
            enabled_by="a host with those (--kernel debian:trixie)",
        )


@pytest.fixture
def makes_write_only(plot: Plot) -> None:
    """The host has VT-d with second-stage tables alone, and a Linux that uses all they can."""
    if not has_vtd(plot) or not plot.owner.kernel.has(6, 16):
        skip(
            "is about VT-d under Linux 6.16 or later",
            enabled_by="a host with those (--kernel debian:trixie-backports)",
        )
    if int(plot.owner.read_text("/sys/class/iommu/dmar0/intel-iommu/ecap"), 16) & FIRST_STAGE:
        skip("is about second-stage tables", enabled_by="a VT-d that has no others")


@on(*WRITE_ONLY)
@pytest.mark.usefixtures("makes_readable")
@pytest.mark.rule("ISO-07")
def test_what_may_be_written_is_read_too(engine: DmaEngine) -> None:
    """A page that is mapped for writing only is no secret: Linux makes such entries readable."""
    give_secret(engine, "w")

    check_got(engine)


@on("L1-strict-edu", "L1-strict-nvme")
@pytest.mark.negative_control("ISO-07")
def test_what_was_for_writing_is_not_got(engine: DmaEngine) -> None:
    """What is not mapped any more the device does not get, and the check fails."""
    give_secret(engine, "w")
    engine.driver.unmap(IOVA)

    with must_fail():
        check_got(engine)


@on(*WRITE_ONLY)
@pytest.mark.usefixtures("makes_write_only")
@pytest.mark.rule("ISO-07")
def test_what_may_only_be_written_is_not_read(engine: DmaEngine) -> None:
    """A page that is mapped for writing only is a secret: since Linux 6.16 entries are so too."""
    give_secret(engine, "w")

    check_not_got(engine, IOVA)


@on("L1-strict-edu", "L1-strict-nvme")
@pytest.mark.usefixtures("makes_write_only")
@pytest.mark.negative_control("ISO-07")
def test_what_is_for_both_is_got(engine: DmaEngine) -> None:
    """The device gets what is in a page that is mapped for both, and the check fails."""
    give_secret(engine, "rw")

    with must_fail():
        check_not_got(engine, IOVA)


@on(*WRITE_ONLY)
@pytest.mark.rule("ISO-07")
def test_what_may_be_written_is_written(engine: DmaEngine) -> None:
    """A page that is mapped for writing only is written, and nothing beside it."""
    page = give(engine, access="w")

    engine.write(IOVA, WORD)

    check_reached(engine, page)


@on("L1-strict-edu", "L1-strict-nvme")
@pytest.mark.negative_control("ISO-07")
def test_what_may_only_be_read_is_noticed(engine: DmaEngine) -> None:
    """A page that is mapped for reading only is not, and the check fails."""
    page = give(engine, access="r")

    engine.write(IOVA, WORD)

    with must_fail():
        check_reached(engine, page)
