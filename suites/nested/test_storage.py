"""The nested guest uses an nvme of the host: data moves by DMA, both ways, translated."""

from collections import Counter
from pathlib import Path

import pytest

from harness.guest.block import BlockDevice
from harness.host.virtual import VirtualHost
from harness.lab.assigned import Assigned
from harness.lab.hosts import DISK_SEED
from harness.model.difference import first_difference
from harness.model.pattern import pattern
from harness.model.pci import Bdf
from harness.parse.trace_log import TraceEvent
from harness.testing import must_fail

BLOCK = 64 * 1024
TRANSLATE = "vtd_dmar_translate"


def check_disk(disk: BlockDevice, seed: int) -> None:
    """The disk holds the pattern of *seed*."""
    assert disk.holds(seed, offset=BLOCK, length=BLOCK)


@pytest.mark.rule("NST-19")
def test_guest_reads_what_the_lab_put_on_the_disk(disk: BlockDevice) -> None:
    """The bytes that the lab wrote below arrive in the nested guest by DMA."""
    check_disk(disk, DISK_SEED)


@pytest.mark.negative_control("NST-19")
def test_other_bytes_on_the_disk_are_noticed(disk: BlockDevice) -> None:
    """The disk does not hold the pattern of another seed."""
    with must_fail():
        check_disk(disk, DISK_SEED + 1)


def check_image(host: VirtualHost, seed: int, offset: int) -> None:
    """The lab's file holds the pattern of *seed*."""
    image = Path(host.machine.evidence / "nvme.img").read_bytes()
    written = image[offset : offset + BLOCK]
    assert first_difference(written, pattern(seed, offset, BLOCK)) is None


@pytest.mark.rule("NST-19")
def test_lab_reads_what_the_guest_wrote(nested_host: VirtualHost, disk: BlockDevice) -> None:
    """The bytes that the nested guest writes arrive in the lab's file."""
    disk.fill(7, offset=64 * BLOCK, length=BLOCK)

    check_image(nested_host, 7, 64 * BLOCK)


@pytest.mark.negative_control("NST-19")
def test_bytes_not_written_are_noticed(nested_host: VirtualHost, disk: BlockDevice) -> None:
    """The lab's file does not hold what the guest never wrote."""
    disk.fill(8, offset=80 * BLOCK, length=BLOCK)

    with must_fail():
        check_image(nested_host, 9, 80 * BLOCK)


def sources(events: tuple[TraceEvent, ...]) -> Counter[Bdf]:
    """Return how often the lab's IOMMU translated, by requester."""
    return Counter(
        Bdf(0, *(int(event.fields[key]) for key in ("bus", "device", "function")))
        for event in events
        if "iova" in event.fields
    )


def check_translated(events: tuple[TraceEvent, ...], source: Bdf) -> None:
    """The IOMMU of the host translated DMA of *source*, at least once per two MiB page."""
    assert sources(events)[source] > 0, sources(events)


@pytest.mark.rule("NST-19")
def test_dma_of_the_guest_is_translated(
    nested_host: VirtualHost, nvme: Assigned, disk: BlockDevice
) -> None:
    """The lab's IOMMU translates what the nvme of the nested guest reads and writes."""
    with nested_host.machine.tracing(TRANSLATE) as window:
        assert disk.holds(DISK_SEED, offset=0, length=BLOCK)

    check_translated(window.events, nvme.function.bdf)


@pytest.mark.negative_control("NST-19")
def test_silence_of_the_iommu_is_noticed(nested_host: VirtualHost, nvme: Assigned) -> None:
    """While the nvme is idle, no translation for it is counted."""
    with nested_host.machine.tracing(TRANSLATE) as window:
        nvme.os.interrupts()

    with must_fail():
        check_translated(window.events, nvme.function.bdf)
