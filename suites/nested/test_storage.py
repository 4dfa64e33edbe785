"""The nested guest uses an nvme of the host: data, interrupts, both ways."""

from pathlib import Path

import pytest

from harness.guest.block import BlockDevice
from harness.host.virtual import VirtualHost
from harness.lab.assigned import Assigned
from harness.lab.hosts import DISK_SEED
from harness.model.pattern import pattern
from harness.testing import only

BLOCK = 64 * 1024


@only("nvme")
@pytest.mark.rule("NST-19")
def test_guest_reads_what_the_lab_put_on_the_disk(assigned: Assigned) -> None:
    """The bytes that the lab wrote below arrive in the nested guest by DMA."""
    disk = BlockDevice(assigned.os, "/dev/nvme0n1")

    assert disk.holds(DISK_SEED, offset=BLOCK, length=BLOCK)


@only("nvme")
@pytest.mark.rule("NST-19")
def test_lab_reads_what_the_guest_wrote(virtual_host: VirtualHost, assigned: Assigned) -> None:
    """The bytes that the nested guest writes arrive in the lab's file."""
    disk = BlockDevice(assigned.os, "/dev/nvme0n1")

    disk.fill(7, offset=8 * BLOCK, length=BLOCK)

    image = Path(virtual_host.machine.evidence / "nvme.img").read_bytes()
    assert image[8 * BLOCK : 9 * BLOCK] == pattern(7, 8 * BLOCK, BLOCK)
