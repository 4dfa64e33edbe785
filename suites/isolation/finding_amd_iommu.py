"""Two gaps of QEMU's amd-iommu, shown: what it tells of what it refuses, and what it lets pass.

Not part of a default run; see docs/findings/amd-iommu-silence.md and amd-iommu-without-remap.md.
"""

from collections.abc import Sequence

from harness.guest.canary import canary
from harness.guest.dma_engine import DmaEngine
from harness.lab.grounds import Plot
from harness.parse.dmesg import FaultKind
from harness.parse.iommu_fault import IommuFault
from suites.isolation.checks import IOVA, WORD, check_intact, give
from suites.isolation.conftest import on
from suites.isolation.test_faults import BESIDE, KINDS, Access


def check_logged(plot: Plot, faults: Sequence[IommuFault], kind: FaultKind, page: int) -> None:
    """The first fault is of that kind, from the device, at the page."""
    found = [(fault.source, (fault.address or 0) & -0x1000, fault.kind) for fault in faults]
    assert found[:1] == [(plot.source, page, kind)], found or "nothing was said"


@on("L2-amd-emulated")
@KINDS
def test_the_owner_is_told(plot: Plot, engine: DmaEngine, access: Access, kind: FaultKind) -> None:
    """Access beside a mapping is logged as IO_PAGE_FAULT, with source, address and kind."""
    give(engine)
    log = plot.listen()

    access(engine, BESIDE)

    check_logged(plot, log.soon(timeout=5), kind, BESIDE)


@on("L2-amd-emulated")
def test_the_owner_is_told_of_a_write_to_what_may_be_read(plot: Plot, engine: DmaEngine) -> None:
    """So is a write to a page that is mapped for reading."""
    give(engine, access="r")
    log = plot.listen()

    engine.write(IOVA, WORD)

    check_logged(plot, log.soon(timeout=5), FaultKind.DMA_WRITE, IOVA)


@on("L2-amd-plain-emulated")
def test_a_bystander_is_not_reached(plot: Plot, engine: DmaEngine) -> None:
    """With amd-iommu's own defaults, memory of another process is not written."""
    with canary(plot.system) as page:
        engine.write(page.address, WORD)

        check_intact(page)
