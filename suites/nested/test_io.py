"""The nvme of a nested guest at work: who sees its doorbells, its data and its interrupts."""

from collections import Counter
from dataclasses import dataclass

import pytest

from harness.guest.block import BlockDevice
from harness.host.virtual import VirtualHost
from harness.lab.assigned import Assigned
from harness.lab.hosts import DISK_SEED
from harness.lab.nested import Nested
from harness.model.address import AddressRange
from harness.parse.trace_log import TraceEvent
from harness.testing import must_fail

KIB = 1024
DOORBELLS = AddressRange(0x1000, 0x1000)
"""Offsets in BAR 0 (NVM Express 1.4, 3.1.24)."""
WRITES = ("vfio_region_write", "memory_region_ram_device_write")
BY_QEMU = "vfio_msi_interrupt"


@dataclass(frozen=True, slots=True)
class Work:
    """What was seen while the guest read from its disk."""

    events: tuple[TraceEvent, ...]
    interrupts: int
    """Counted by the guest."""
    correct: bool
    """The bytes are those that the lab put there."""

    def count(self, name: str) -> int:
        """Return the number of events *name*."""
        return sum(event.name == name for event in self.events)

    @property
    def doorbells(self) -> Counter[int]:
        """Return the writes to doorbells that QEMU saw, by offset."""
        addresses = [e.fields.get("addr") for e in self.events if e.name in WRITES]
        return Counter(a for a in addresses if isinstance(a, int) and a in DOORBELLS)


def work_of(nested: Nested, size: int = 64 * KIB) -> Work:
    """Let the guest read *size* bytes of its disk while QEMU traces."""
    guest = nested.assigned["nvme"].os
    before = guest.interrupts()
    with nested.machine.tracing(*WRITES, BY_QEMU) as window:
        correct = BlockDevice(guest, "/dev/nvme0n1").holds(DISK_SEED, offset=0, length=size)
    since = guest.interrupts().since(before)
    return Work(window.events, sum(r.total for r in since.containing("nvme0q")), correct)


def check_silent(work: Work) -> None:
    """The I/O was done, and QEMU saw no doorbell."""
    assert work.correct and work.interrupts
    assert not work.doorbells, work.doorbells


def check_seen(work: Work) -> None:
    """The I/O was done, and QEMU passed on what rang the doorbell of queue 1."""
    assert work.correct and work.interrupts
    assert work.doorbells[0x1008], work.doorbells


@pytest.mark.rule("TRP-14")
@pytest.mark.negative_control("TRP-14")
def test_mapped_doorbells_do_not_reach_qemu(nested: Nested) -> None:
    """A write to a mapped doorbell has its effect, and QEMU does not see it."""
    work = work_of(nested)

    check_silent(work)
    with must_fail():
        check_seen(work)


@pytest.mark.rule("TRP-14")
@pytest.mark.negative_control("TRP-14")
def test_doorbells_that_are_not_mapped_reach_qemu(through_qemu: Nested) -> None:
    """With x-no-mmap the same write is seen by QEMU, with its offset."""
    work = work_of(through_qemu)

    check_seen(work)
    with must_fail():
        check_silent(work)


def check_bypasses_qemu(work: Work) -> None:
    """There were interrupts, and QEMU touched none."""
    assert work.interrupts > 0 and work.count(BY_QEMU) == 0, work


def check_passes_qemu(work: Work) -> None:
    """There were interrupts, and QEMU took each of them in its hands."""
    assert work.count(BY_QEMU) >= work.interrupts > 0, work


@pytest.mark.rule("INT-02")
@pytest.mark.negative_control("INT-03")
def test_interrupts_do_not_reach_qemu(nested: Nested, kvm: None) -> None:
    """Under KVM interrupts go from the host's kernel to the guest without QEMU."""
    work = work_of(nested)

    check_bypasses_qemu(work)
    with must_fail():
        check_passes_qemu(work)


@pytest.mark.rule("INT-03")
@pytest.mark.negative_control("INT-02")
def test_interrupts_go_through_qemu_when_told_to(through_qemu: Nested, kvm: None) -> None:
    """With x-no-kvm-msix each interrupt goes through QEMU."""
    work = work_of(through_qemu)

    check_passes_qemu(work)
    with must_fail():
        check_bypasses_qemu(work)


def check_exits_do_not_follow_bytes(exits: int, size: int) -> None:
    """There were fewer exits than one per eight pages moved."""
    assert exits < size // (8 * 4 * KIB), f"{exits} exits for {size} bytes"


@pytest.mark.rule("TRP-19")
def test_dma_does_not_trap(nested: Nested, kvm: None) -> None:
    """Data that the device moves costs no exits: they follow doorbells, not bytes."""
    before = nested.machine.statistics()["mmio_exits"]

    work = work_of(nested, 1024 * KIB)

    assert work.correct and not work.count("memory_region_ram_device_write")
    exits = nested.machine.statistics()["mmio_exits"] - before
    check_exits_do_not_follow_bytes(exits, 1024 * KIB)


@pytest.mark.negative_control("TRP-19")
def test_data_moved_by_traps_is_noticed(nvme: Assigned, kvm: None) -> None:
    """Words that the processor fetches from a trapped register cost one exit each."""
    reads = nvme.read(nvme.msix.table_bar, nvme.msix.table_offset, count=256)

    with must_fail():
        check_exits_do_not_follow_bytes(reads.exits or 0, 1024 * KIB)


def lab_serves(host: VirtualHost, nvme: Assigned, offset: int, count: int) -> int:
    """Let the guest read a register; return how many of its reads the lab's QEMU served."""
    with host.machine.tracing("memory_region_ops_read") as window:
        nvme.read(nvme.msix.table_bar, offset, count=count)
    return sum(event.fields.get("name") == "nvme" for event in window.events)


def check_served_by_lab(served: int, count: int) -> None:
    """Each read reached the emulated device in the lab."""
    assert served >= count, served


@pytest.mark.rule("TRP-17")
def test_direct_reads_end_in_the_lab(nested_host: VirtualHost, nvme: Assigned) -> None:
    """A read that is direct for the host's QEMU ends in the lab, which emulates the device."""
    check_served_by_lab(lab_serves(nested_host, nvme, 0x08, 100), 100)


@pytest.mark.negative_control("TRP-17")
def test_reads_that_the_host_serves_are_noticed(nested_host: VirtualHost, nvme: Assigned) -> None:
    """Reads of the MSI-X table are served by the host's QEMU and do not reach the lab."""
    served = lab_serves(nested_host, nvme, nvme.msix.table_offset, 100)

    with must_fail():
        check_served_by_lab(served, 100)
