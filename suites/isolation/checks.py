"""Checks of what DMA changed that several files of this area make."""

from __future__ import annotations

from harness.guest.canary import Canary
from harness.guest.dma_engine import GOT, QUIET, DmaEngine
from harness.guest.vfio_driver import Given

IOVA = 0x1234_5000
WORD = 8


def give(engine: DmaEngine, *, access: str = "rw") -> Given:
    """Map a page whose every byte shows when it is written."""
    return engine.driver.give(IOVA, access=access, fill=QUIET)


def check_reached(engine: DmaEngine, given: Given) -> None:
    """The first word of the page changed, and nothing else did."""
    check_only(engine, given, 0, WORD - 1)


def check_only(engine: DmaEngine, given: Given, first: int, last: int) -> None:
    """Of the page and its neighbours, the bytes from *first* to *last* changed and no others."""
    changed = engine.driver.changed(given)
    assert changed is not None, "nothing was written"
    expected = (last - first + 1, first, last)
    assert (changed.count, changed.first, changed.last) == expected, changed


def check_untouched(engine: DmaEngine, given: Given) -> None:
    """No byte of the page or its neighbours changed."""
    changed = engine.driver.changed(given)
    assert changed is None, changed


def check_not_got(engine: DmaEngine, address: int) -> None:
    """What the device read there is not what is there."""
    got = engine.read(address)
    assert got != GOT, f"the device got {got:#x} from {address:#x}"


def check_intact(page: Canary) -> None:
    """No byte of a page that is somebody else's changed."""
    assert page.intact, page.look()
