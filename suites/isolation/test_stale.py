"""Mappings that were: after unmap, in another domain, after a reset, after an unplug."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from harness.errors import GuestError
from harness.guest.canary import Canary, canary
from harness.guest.dma_engine import QUIET, DmaEngine, EduEngine, NvmeEngine
from harness.guest.edu import Edu
from harness.guest.stray import stray_write
from harness.guest.vfio_driver import Given, drive
from harness.lab.grounds import Grounds, Plot, taken_out
from harness.lab.nested import Nested
from harness.parse.dmesg import FaultKind
from harness.parse.iommu_fault import IommuFault
from harness.testing import must_fail
from suites.isolation.checks import IOVA, WORD, check_intact, check_reached, check_untouched, give
from suites.isolation.conftest import CONTROLS, CORE, DEFAULT, EVERYWHERE, edus, on
from suites.isolation.test_faults import SILENCE, check_told

# -- unmap ------------------------------------------------------------------------------------


@on(*EVERYWHERE, always=DEFAULT)
@pytest.mark.rule("ISO-08")
def test_what_was_unmapped_is_not_reached(engine: DmaEngine) -> None:
    """A page that the device has used does not change any more when it was unmapped."""
    page = give(engine)
    engine.write(IOVA, WORD)

    engine.driver.unmap(IOVA)
    engine.write(IOVA + 0x100, WORD)

    check_reached(engine, page)


@on(*CONTROLS)
@pytest.mark.negative_control("ISO-08")
def test_what_stays_mapped_is_noticed(engine: DmaEngine) -> None:
    """Without the unmap the second write arrives, and the check fails."""
    page = give(engine)
    engine.write(IOVA, WORD)

    engine.write(IOVA + 0x100, WORD)

    with must_fail():
        check_reached(engine, page)


TRIES = 8
"""A computer that is busy may be too slow to overtake a transfer: then it is tried again."""


def overtake(engine: DmaEngine) -> Given:
    """Start a write and take its page away; return the first page that was gone in time."""
    assert isinstance(engine, EduEngine)
    for _ in range(TRIES):
        page = give(engine)
        engine.begin_write(IOVA)
        engine.driver.unmap(IOVA)
        in_time = engine.busy
        engine.wait_idle()
        if in_time:
            return page
    raise GuestError(f"no unmap of {TRIES} was done before the transfer that was started")


@on(*edus(*CORE))
@pytest.mark.rule("ISO-09")
def test_dma_that_was_started_does_not_reach_what_was_unmapped(engine: DmaEngine) -> None:
    """A transfer that was started before the unmap and is done after it goes nowhere."""
    page = overtake(engine)

    check_untouched(engine, page)


@on(*edus(*CONTROLS))
@pytest.mark.negative_control("ISO-09")
def test_dma_that_was_not_overtaken_is_noticed(engine: DmaEngine) -> None:
    """Without the unmap it arrives, and the check fails."""
    assert isinstance(engine, EduEngine)
    page = give(engine)
    engine.begin_write(IOVA)
    engine.wait_idle()

    with must_fail():
        check_untouched(engine, page)


# -- another domain ---------------------------------------------------------------------------


@on(*CORE)
@pytest.mark.rule("ISO-10")
def test_another_domain_leads_to_another_page(engine: DmaEngine) -> None:
    """The function in a second domain reaches the page that the same IOVA has there."""
    give(engine)
    engine.write(IOVA + 0x100, WORD)
    engine.driver.again()
    engine.start()
    after = give(engine)

    engine.write(IOVA, WORD)

    check_reached(engine, after)


@on(*EVERYWHERE)
@pytest.mark.rule("ISO-10")
def test_the_domain_before_is_not_reached(engine: DmaEngine) -> None:
    """The page of the first domain changes no more, nothing being mapped in the second."""
    before = give(engine)
    engine.write(IOVA, WORD)
    engine.driver.again()
    engine.start()

    engine.write(IOVA + 0x100, WORD)

    check_reached(engine, before)


@on(*CONTROLS)
@pytest.mark.negative_control("ISO-10")
def test_the_same_domain_is_noticed(engine: DmaEngine) -> None:
    """In the same domain the page changes again, and the check fails."""
    page = give(engine)
    engine.write(IOVA, WORD)

    engine.write(IOVA + 0x100, WORD)

    with must_fail():
        check_reached(engine, page)


# -- reset ------------------------------------------------------------------------------------

RESETTABLE = tuple(place for place in CORE if place.endswith("nvme"))


def ring_after(engine: DmaEngine, between: Callable[[], None]) -> None:
    """Queue a write, do something else, then tell the device that the write is there."""
    assert isinstance(engine, NvmeEngine)
    engine.prepare_write(IOVA)
    between()
    engine.ring()
    engine.enable()


@on(*RESETTABLE)
@pytest.mark.rule("ISO-12")
def test_what_was_queued_before_a_reset_is_not_done(engine: DmaEngine) -> None:
    """A command that is in the queue of an nvme when it is reset is not done after that."""
    page = give(engine)

    ring_after(engine, engine.driver.reset)

    check_untouched(engine, page)


@on("L1-strict-nvme")
@pytest.mark.negative_control("ISO-12")
def test_a_queue_that_goes_on_is_noticed(engine: DmaEngine) -> None:
    """Without the reset it is done, and the check fails."""
    page = give(engine)

    ring_after(engine, lambda: None)

    with must_fail():
        check_untouched(engine, page)


@on(*RESETTABLE)
@pytest.mark.rule("ISO-12")
def test_a_reset_opens_nothing(engine: DmaEngine) -> None:
    """After a reset what was unmapped before it is as unmapped as it was."""
    assert isinstance(engine, NvmeEngine)
    page = give(engine)
    engine.write(IOVA, WORD)
    engine.driver.unmap(IOVA)

    engine.driver.reset()
    engine.enable()
    engine.write(IOVA + 0x100, WORD)

    check_reached(engine, page)


# -- unplug -----------------------------------------------------------------------------------

BAD = 0x6261_6421


@dataclass
class Left:
    """A page of a guest, and the edu that the guest had."""

    nested: Nested
    page: Canary

    def write_inside(self) -> None:
        """Let the guest's driver have the device write the page."""
        assigned = self.nested.assigned["edu"]
        edu = Edu(assigned.os, assigned.bdf)
        edu.configure()
        edu.poke(self.page.address, BAD)

    def write_outside(self) -> None:
        """Have the device unplugged, and a driver on the host have it write where the page was."""
        assigned = self.nested.assigned["edu"]
        with (
            taken_out(self.nested, "edu"),
            drive(self.nested.host, assigned.function.bdf) as driver,
        ):
            engine = EduEngine(driver)
            engine.start()
            engine.write(self.page.address, WORD)


@pytest.fixture
def left(never_read: None, nested: Nested) -> Iterator[Left]:
    """A page of a resident guest, which has an edu.

    Its flat views were never read, or the edu would not go: docs/findings.
    """
    assert nested.guest is not None
    with canary(nested.guest, value=QUIET) as page:
        yield Left(nested, page)


@pytest.mark.full
@pytest.mark.rule("ISO-13")
def test_a_guest_is_not_reached_by_what_it_had(left: Left) -> None:
    """A function that was unplugged does not reach the guest at the address that it had there."""
    left.write_outside()

    check_intact(left.page)


@pytest.mark.full
@pytest.mark.negative_control("ISO-13")
def test_a_guest_is_reached_by_what_it_has(left: Left) -> None:
    """As long as it is plugged it does, and the check fails."""
    left.write_inside()

    with must_fail():
        check_intact(left.page)


# -- unplug of what a guest's own IOMMU maps --------------------------------------------------

BACK = ("L2-intel-edu", "L2-intel-emulated")


def write_again(plot: Plot, *, timeout: float = 15) -> tuple[IommuFault, ...]:
    """Have the function write where it had a page; return what its owner says of it."""
    log = plot.listen()
    stray_write(plot.system, plot.bdf, IOVA)
    return log.soon(timeout=timeout)


def check_mapping_is_gone(plot: Plot, faults: tuple[IommuFault, ...]) -> None:
    """The write was refused, and the owner told of source and page."""
    check_told(plot, faults, FaultKind.DMA_WRITE, IOVA)


def leave_mapped(plot: Plot) -> None:
    """Have the function use a page, and its driver end without an unmap."""
    with plot.engine() as engine:
        page = give(engine)
        engine.write(IOVA, WORD)
        check_reached(engine, page)


@on(*BACK)
@pytest.mark.rule("ISO-13")
def test_a_function_that_comes_back_has_nothing_of_before(plot: Plot, grounds: Grounds) -> None:
    """Unplugged and plugged again, a function does not reach what it had behind a vIOMMU."""
    leave_mapped(plot)

    with taken_out(grounds.guest(plot.ground), plot.device):
        pass

    check_mapping_is_gone(plot, write_again(plot))


@on(*BACK)
@pytest.mark.negative_control("ISO-13")
def test_a_mapping_that_stays_is_noticed(plot: Plot, engine: DmaEngine) -> None:
    """As long as the page is mapped the write is not refused, and the check fails."""
    give(engine)
    faults = write_again(plot, timeout=SILENCE)

    with must_fail():
        check_mapping_is_gone(plot, faults)
