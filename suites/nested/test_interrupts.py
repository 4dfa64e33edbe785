"""Interrupts of the nested guest's nvme: counted on both levels, programmed by QEMU."""

from collections.abc import Mapping

import pytest

from harness.guest.block import BlockDevice
from harness.guest.system import System
from harness.host.virtual import VirtualHost
from harness.lab.assigned import Assigned
from harness.lab.hosts import DISK_SEED
from harness.lab.nested import Nested
from harness.model.interrupts import InterruptTable
from harness.model.pci import Bdf
from harness.parse.trace_log import TraceEvent
from harness.testing import must_fail, only

BLOCK = 64 * 1024
VECTOR_OF_QUEUE_1 = 1

Counts = Mapping[int | None, int]


def of_host(table: InterruptTable, bdf: Bdf) -> Counts:
    """Return the interrupts that vfio took from *bdf*, by vector."""
    return {row.hardware: row.total for row in table.containing(f"]({bdf})")}


def of_guest(table: InterruptTable) -> Counts:
    """Return the interrupts of the queues of the guest's nvme, by vector."""
    return {row.hardware: row.total for row in table.containing("nvme0q")}


def check_counts(host: Counts, guest: Counts) -> None:
    """There were interrupts, and both levels counted the same, vector by vector."""
    assert sum(guest.values()) > 0, guest
    assert host == guest


@pytest.mark.rule("NST-21")
def test_host_counts_the_interrupts_of_the_guest(
    nested_host: VirtualHost, nvme: Assigned, disk: BlockDevice
) -> None:
    """Each interrupt of an nvme queue in the guest is one of vfio-msix[N] in the host."""
    host, guest = nested_host.interrupts(), nvme.os.interrupts()

    disk.holds(DISK_SEED, offset=0, length=BLOCK)

    check_counts(
        of_host(nested_host.interrupts().since(host), nvme.function.bdf),
        of_guest(nvme.os.interrupts().since(guest)),
    )


@pytest.mark.negative_control("NST-21")
def test_an_interrupt_not_counted_is_noticed(
    nested_host: VirtualHost, nvme: Assigned, disk: BlockDevice
) -> None:
    """The host's counts of before the I/O are not the guest's of after it."""
    guest = nvme.os.interrupts()
    host = nested_host.interrupts()

    disk.holds(DISK_SEED, offset=0, length=BLOCK)

    with must_fail():
        check_counts(
            of_host(host.since(host), nvme.function.bdf),
            of_guest(nvme.os.interrupts().since(guest)),
        )


def entry(system: System, bdf: Bdf, assigned: Assigned, vector: int) -> tuple[int, int]:
    """Return address and data of an MSI-X table entry as *system* reads it."""
    msix = assigned.msix
    path = system.resource_file(bdf, msix.table_bar)
    said = system.probe("mem", "words", path, msix.table_offset + 16 * vector, "3")
    low, high, data = (int(word, 16) for word in said["words"].split(","))
    return high << 32 | low, data


def check_redirected(guest: tuple[int, int], device: tuple[int, int]) -> None:
    """Both are in use, and what the guest wrote is not what the device has."""
    assert guest[0] and device[0], (guest, device)
    assert guest != device


@pytest.mark.rule("INT-01", "TRP-20")
def test_device_does_not_have_the_entry_of_the_guest(
    nested_host: VirtualHost, nvme: Assigned
) -> None:
    """The guest's MSI-X table is QEMU's; the device has the host's message."""
    guest = entry(nvme.os, nvme.bdf, nvme, VECTOR_OF_QUEUE_1)
    device = entry(nested_host, nvme.function.bdf, nvme, VECTOR_OF_QUEUE_1)

    check_redirected(guest, device)


@pytest.mark.negative_control("INT-01", "TRP-20")
def test_one_entry_for_both_is_noticed(nested_host: VirtualHost, nvme: Assigned) -> None:
    """The device's entry read twice fails the check."""
    device = entry(nested_host, nvme.function.bdf, nvme, VECTOR_OF_QUEUE_1)

    with must_fail():
        check_redirected(device, device)


MSIX_EVENTS = ("vfio_msix_enable", "vfio_msix_disable", "vfio_msi_enable")


def check_switched(events: tuple[TraceEvent, ...], bdf: Bdf) -> None:
    """MSI-X of *bdf* went off first and came on last."""
    seen = [event.name for event in events if event.arguments.startswith(f"({bdf})")]
    assert seen[:1] == ["vfio_msix_disable"] and seen[-1:] == ["vfio_msix_enable"], seen


@only("e1000e", "igb")
@pytest.mark.rule("INT-04")
def test_driver_switches_msix(nested: Nested, assigned: Assigned) -> None:
    """A driver of the guest that goes and comes gives vfio_msix_disable and vfio_msix_enable."""
    with nested.machine.tracing(*MSIX_EVENTS) as window:
        assigned.os.rebind(assigned.bdf)

    check_switched(window.events, assigned.function.bdf)


@pytest.mark.negative_control("INT-04")
def test_a_driver_that_stays_is_noticed(nested: Nested) -> None:
    """While the driver of another function goes and comes, MSI-X of this one does not change."""
    e1000e, igb = nested.assigned["e1000e"], nested.assigned["igb"]

    with nested.machine.tracing(*MSIX_EVENTS) as window:
        e1000e.os.rebind(e1000e.bdf)

    with must_fail():
        check_switched(window.events, igb.function.bdf)
