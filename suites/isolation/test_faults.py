"""Who is told of a refused access, and what."""

from collections.abc import Callable, Sequence

import pytest

from harness.guest.dma_engine import DmaEngine
from harness.guest.fault_log import FaultLog
from harness.guest.vfio_driver import PAGE
from harness.lab.grounds import Plot
from harness.parse.dmesg import FaultKind
from harness.parse.iommu_fault import IommuFault
from harness.testing import must_fail
from suites.isolation.checks import IOVA, WORD, give
from suites.isolation.conftest import CONTROLS, CORE, TELLING, on

BESIDE = IOVA + 0x10_0000
SILENCE = 1.5
"""Seconds to listen where nothing comes."""
REASONS = {FaultKind.DMA_WRITE: "0x5", FaultKind.DMA_READ: "0x6"}
"""Of VT-d (7.2.3): no entry permits the write, the read."""

Access = Callable[[DmaEngine, int], object]
KINDS = pytest.mark.parametrize(
    ("access", "kind"),
    [
        pytest.param(lambda engine, where: engine.write(where, WORD), FaultKind.DMA_WRITE, id="w"),
        pytest.param(lambda engine, where: engine.read(where), FaultKind.DMA_READ, id="r"),
    ],
)


def expected_fault(plot: Plot, kind: FaultKind, *, mapped: bool) -> tuple[object, str]:
    """Return kind and reason as the owner of the plot tells them.

    QEMU's virtio-iommu does not say what was tried where nothing is mapped
    (``virtio_iommu_translate()``).
    """
    if plot.dialect == "virtio":
        return (kind if mapped else None), "page"
    return kind, REASONS[kind]


def check_told(
    plot: Plot,
    faults: Sequence[IommuFault],
    kind: FaultKind,
    address: int,
    *,
    mapped: bool = False,
) -> None:
    """The first fault is of that kind, from the device, at the page of *address*, with reason.

    :param mapped: something is mapped there, but does not permit it.
    """
    expected = [(plot.source, address & -0x1000, *expected_fault(plot, kind, mapped=mapped))]
    found = [(f.source, (f.address or 0) & -0x1000, f.kind, f.reason) for f in faults]
    assert found[:1] == expected, f"{plot.owner.name} said {found}, expected {expected}"


@on(*TELLING)
@KINDS
@pytest.mark.rule("ISO-14", "VTD-51")
def test_the_owner_is_told(plot: Plot, engine: DmaEngine, access: Access, kind: FaultKind) -> None:
    """Access beside a mapping is logged with source, address, kind and reason."""
    give(engine)
    log = plot.listen()

    access(engine, BESIDE)

    check_told(plot, log.soon(), kind, BESIDE)


@on(*CORE)
@pytest.mark.rule("ISO-14")
def test_the_owner_is_told_of_a_write_to_what_may_be_read(plot: Plot, engine: DmaEngine) -> None:
    """A write to a read-only mapping is logged as a write that is not permitted."""
    give(engine, access="r")
    log = plot.listen()

    engine.write(IOVA, WORD)

    check_told(plot, log.soon(), FaultKind.DMA_WRITE, IOVA, mapped=True)


@on(*CONTROLS)
@KINDS
@pytest.mark.negative_control("ISO-14", "VTD-51")
def test_permitted_access_is_noticed(
    plot: Plot, engine: DmaEngine, access: Access, kind: FaultKind
) -> None:
    """Access to a mapping logs nothing, and the check fails."""
    give(engine)
    log = plot.listen()

    access(engine, IOVA)

    with must_fail():
        check_told(plot, log.soon(timeout=SILENCE), kind, IOVA)


@on("L1-strict-edu", "L2-intel-emulated")
@pytest.mark.negative_control("ISO-14", "VTD-51")
def test_another_fault_is_noticed(plot: Plot, engine: DmaEngine) -> None:
    """The fault of a page is not that of another page, and that of a write not one of a read."""
    give(engine)
    log = plot.listen()

    engine.write(BESIDE + PAGE, WORD)

    faults = log.soon()
    with must_fail():
        check_told(plot, faults, FaultKind.DMA_WRITE, BESIDE)
    with must_fail():
        check_told(plot, faults, FaultKind.DMA_READ, BESIDE + PAGE)


# -- the other level --------------------------------------------------------------------------

AT_TWO_LEVELS = tuple(place for place in CORE if place.startswith("L2-"))


def check_silent(faults: Sequence[IommuFault]) -> None:
    """No fault was told."""
    assert not faults, faults


@on(*AT_TWO_LEVELS)
@pytest.mark.rule("ISO-15")
@pytest.mark.negative_control("ISO-15")
def test_the_other_level_is_not_told(plot: Plot, engine: DmaEngine) -> None:
    """The fault is in the log of the level whose IOMMU refused, and in no other."""
    assert plot.other is not None
    give(engine)
    mine, others = plot.listen(), FaultLog.listen(plot.other)

    engine.write(BESIDE, WORD)

    with must_fail():
        check_silent(mine.soon())
    check_silent(others.faults())
