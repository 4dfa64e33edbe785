"""The interrupt pin of an nvme, by way of KVM alone."""

from dataclasses import dataclass, replace

import pytest

from harness.guest.block import BlockDevice
from harness.lab.assigned import Assigned
from harness.lab.hosts import DISK_SEED
from harness.lab.nested import Nested
from harness.model.memory_map import Kind, MemoryMap
from harness.parse.trace_log import TraceEvent
from harness.testing import must_fail

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("kvm")]

BY_QEMU, MMAPS = "vfio_intx_interrupt", "vfio_region_mmaps_set_enabled"
SIZE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Work:
    """What was seen while the guest read from its disk."""

    events: tuple[TraceEvent, ...]
    interrupts: int
    """Of the pin, counted by the guest."""
    after: MemoryMap
    """Of the machine, right afterwards."""

    def count(self, name: str, containing: str = "") -> int:
        """Return the number of events *name* with these words."""
        return sum(e.name == name and containing in e.arguments for e in self.events)


def work_of(nested: Nested) -> Work:
    """Let the guest read its disk, which interrupts by the pin."""
    guest = nested.assigned["nvme"].os
    before = guest.interrupts()
    with nested.machine.tracing(BY_QEMU, MMAPS) as window:
        assert BlockDevice(guest, "/dev/nvme0n1").holds(DISK_SEED, offset=0, length=SIZE)
        after = nested.machine.memory_map()
    rows = guest.interrupts().since(before).containing("nvme0q")
    assert not any("MSI" in row.chip for row in rows), rows
    return Work(window.events, sum(row.total for row in rows), after)


def mapped(nvme: Assigned, found: MemoryMap) -> bool:
    """Say whether anything of BAR 0 is mapped."""
    return any(row.kind is Kind.RAMD for row in found.memory.covering(nvme.window(0)))


def check_stays_mapped(nvme: Assigned, work: Work) -> None:
    """There were interrupts, QEMU saw none of them, and the device stayed mapped."""
    assert work.interrupts > 0, "the guest counted no interrupt"
    assert (work.count(BY_QEMU), work.count(MMAPS)) == (0, 0), work.events[:4]
    assert mapped(nvme, work.after)


@pytest.mark.rule("INT-09")
def test_bypass_keeps_the_mappings(intx_guest: Nested) -> None:
    """With KVM's bypass an INTx does not reach QEMU, and the BARs stay mapped."""
    nvme = intx_guest.assigned["nvme"]

    work = work_of(intx_guest)

    check_stays_mapped(nvme, work)


@pytest.mark.negative_control("INT-09")
def test_mappings_that_went_are_noticed(intx_guest: Nested) -> None:
    """The check fails for a map in which what is mapped traps, and where nothing interrupted."""
    nvme, work = intx_guest.assigned["nvme"], work_of(intx_guest)
    trapped = work.after.altered(lambda row: replace(row, kind=Kind.IO))

    with must_fail():
        check_stays_mapped(nvme, replace(work, after=trapped))
    with must_fail():
        check_stays_mapped(nvme, replace(work, interrupts=0))
