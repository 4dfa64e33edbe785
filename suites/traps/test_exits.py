"""What KVM counts while a guest touches ports, configuration space and doorbells."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.lab.accesses import Accesses, Counts, counting
from harness.lab.assigned import Assigned
from harness.model.address import AddressRange
from harness.model.memory_map import MemoryMap, Region
from harness.testing import must_fail, only
from suites.vfio_pci.registers import HARMLESS, PORT_REGISTER

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("kvm")]

COUNT = 300
DATA = "memory_region_ops_read:pci-conf-data"
ECAM = "memory_region_ops_read:pcie-mmcfg-mmio"


def quietest(measure: Callable[[], Accesses]) -> Accesses:
    """Measure three times; return the one that others disturbed least.

    What else the guest does, as a line on its console, leaves the guest too: noise only adds.
    """
    return min((measure() for _ in range(3)), key=lambda reads: reads.counters["exits"])


def about(found: int, wanted: int) -> bool:
    """Say whether *found* is *wanted*, but for a twentieth that others add."""
    return wanted <= found <= wanted + COUNT // 20


# -- ports ------------------------------------------------------------------------------------


def check_port_exits(reads: Accesses) -> None:
    """Each read was an exit for a port, and none was one for memory."""
    ports, memory = reads.counters["io_exits"], reads.counters["mmio_exits"]
    assert about(ports, reads.count) and about(memory, 0), f"{reads.explain()}; io exits {ports}"


@only("e1000e", "igb")
@pytest.mark.rule("TRP-04")
def test_reads_of_ports_are_port_exits(assigned: Assigned) -> None:
    """N reads of a BAR of I/O ports raise ``io_exits`` by N, and ``mmio_exits`` not at all."""
    bar, offset = PORT_REGISTER[assigned.name]

    check_port_exits(quietest(lambda: assigned.read_port(bar, offset, count=COUNT)))


@only("nvme", "e1000e")
@pytest.mark.negative_control("TRP-04")
def test_reads_of_memory_are_not(assigned: Assigned) -> None:
    """Reads of the MSI-X table, trapped memory, fail the check."""
    reads = assigned.read(assigned.msix.table_bar, assigned.msix.table_offset, count=COUNT)

    with must_fail():
        check_port_exits(reads)


@only("e1000e")
@pytest.mark.negative_control("TRP-04")
def test_reads_without_exits_are_noticed(assigned: Assigned) -> None:
    """Reads of mapped memory fail the check."""
    reads = assigned.read(0, HARMLESS["e1000e"][0], count=COUNT)

    with must_fail():
        check_port_exits(reads)


# -- configuration space ----------------------------------------------------------------------


def check_by_ports(reads: Accesses) -> None:
    """Each read selected a register by one port and fetched it by another."""
    fetched, seen = reads.events.get(DATA, 0), reads.events.get("vfio_pci_read_config", 0)
    assert about(fetched, reads.count) and about(seen, reads.count), reads.explain()
    ports = reads.counters["io_exits"]
    assert 2 * reads.count <= ports <= 2 * reads.count + COUNT // 10, f"io exits {ports}"


def check_by_memory(reads: Accesses) -> None:
    """Each read was one of the window of configuration space in memory."""
    seen = reads.events.get("vfio_pci_read_config", 0)
    assert about(reads.events.get(ECAM, 0), reads.count), reads.explain()
    assert about(seen, reads.count) and about(reads.exits or 0, reads.count), reads.explain()


@only("nvme", "edu")
@pytest.mark.parametrize("offset", [0x00, 0x2C], ids=hex)
@pytest.mark.rule("TRP-05")
def test_low_configuration_space_is_two_ports(assigned: Assigned, offset: int) -> None:
    """Below 256 each read of configuration space is a write of CF8 and a read of CFC."""
    check_by_ports(quietest(lambda: assigned.read_config(offset, count=COUNT)))


@only("e1000e", "igb")
@pytest.mark.parametrize("offset", [0x100, 0xFFC], ids=hex)
@pytest.mark.rule("TRP-05")
def test_extended_configuration_space_is_memory(assigned: Assigned, offset: int) -> None:
    """From 256 up each read is one of ECAM."""
    check_by_memory(quietest(lambda: assigned.read_config(offset, count=COUNT)))


@only("e1000e")
@pytest.mark.negative_control("TRP-05")
def test_one_way_is_not_taken_for_the_other(assigned: Assigned) -> None:
    """Each of the two checks fails for the other half of configuration space."""
    low, high = (assigned.read_config(offset, count=COUNT) for offset in (0x00, 0x100))

    with must_fail():
        check_by_memory(low)
    with must_fail():
        check_by_ports(high)


SELECTOR = AddressRange(0xCF8, 4)


def handed_over(found: MemoryMap, count: int) -> int:
    """Return how often QEMU gets control for *count* reads, by the ports of its map.

    The write that selects is coalesced if its port is one row, whole. A chipset that puts its
    reset control at 0xcf9 cuts it: docs/findings/cf8-never-coalesced.md.
    """
    whole = any(row.range.covers(SELECTOR) for row in found.ports.regions)
    return count if whole else 2 * count


def check_handed_over(reads: Accesses, found: MemoryMap) -> None:
    """QEMU got control as often as the map implies."""
    wanted, handed = handed_over(found, reads.count), reads.events.get("kvm_run_exit", 0)
    assert wanted <= handed <= wanted + COUNT // 10, f"{wanted} expected: {reads.explain()}"


@only("edu")
@pytest.mark.rule("TRP-05")
def test_selecting_is_coalesced_if_its_port_is_whole(assigned: Assigned) -> None:
    """The write of CF8 stays in the kernel only where no other region cuts the port."""
    found = assigned.memory_map()

    check_handed_over(quietest(lambda: assigned.read_config(0x00, count=COUNT)), found)


@only("edu")
@pytest.mark.negative_control("TRP-05")
def test_a_map_without_the_cut_is_noticed(assigned: Assigned) -> None:
    """For a map in which the port is whole, or cut where it was not, the check fails."""
    found = assigned.memory_map()
    reads = assigned.read_config(0x00, count=COUNT)
    whole = handed_over(found, 1) == 1
    size = 1 if whole else 4

    with must_fail():
        check_handed_over(reads, found.altered(lambda row: resized(row, SELECTOR.start, size)))


def resized(row: Region, start: int, size: int) -> Region:
    """Return the row, with another size if it begins at *start*."""
    here = row.range.start == start
    return replace(row, range=AddressRange(start, size)) if here else row


# -- exits that the kernel keeps to itself ----------------------------------------------------


RTC_INDEX = 0x70
"""Port that selects a register of the clock: q35 coalesces its writes (mc146818rtc.c)."""
SCRATCH = 0x80
"""Port of nobody, which QEMU serves each time."""


def written(assigned: Assigned, port: int) -> Counts:
    """Let the guest write `COUNT` times to a port."""
    with counting(assigned.machine, "memory_region_ops_write", "kvm_run_exit") as counts:
        assigned.os.probe("port", "write", "/dev/port", port, "--value", 0x0D, "--width", "1",
                          "--count", COUNT)  # fmt: skip
    return counts


def check_seldom_handed_over(counts: Counts) -> None:
    """The guest left for each write, and QEMU got control for few of them."""
    left, handed = counts.counters["io_exits"], counts.events.get("kvm_run_exit", 0)
    assert left >= COUNT, f"the guest left {left} times only"
    assert handed < COUNT // 2, f"QEMU got control {handed} times for {COUNT} writes"


@only("edu")
@pytest.mark.rule("TRP-12")
def test_coalesced_writes_seldom_wake_qemu(assigned: Assigned) -> None:
    """Writes of a coalesced port leave the guest, not the kernel, until its buffer is full."""
    check_seldom_handed_over(written(assigned, RTC_INDEX))


@only("edu")
@pytest.mark.negative_control("TRP-12")
def test_writes_that_wake_qemu_are_noticed(assigned: Assigned) -> None:
    """Writes of a port that is not coalesced fail the check."""
    counts = written(assigned, SCRATCH)

    with must_fail():
        check_seldom_handed_over(counts)


NIC = "ssh-nic"
"""The network card of every guest: a virtio."""
DOORBELLS = "virtio-pci-notify-virtio-net"
TX, OF_NOBODY = 1, 40
"""Queues: the one that sends, which an eventfd in the kernel serves, and one that is not there."""


def rung(assigned: Assigned, queue: int) -> Counts:
    """Let the guest ring a doorbell of its network card `COUNT` times, with nothing to say."""
    memory = assigned.machine.memory_map().memory
    start = next(row.range.start for row in memory.owned_by(NIC) if row.name == DOORBELLS)
    bars = assigned.machine.bar_addresses(NIC)
    below = {address: bar for bar, address in bars.items() if address <= start}
    base = max(below)
    path = assigned.os.resource_file(assigned.machine.function_of(NIC).bdf, below[base])
    words = ("mem", "write", path, start + 4 * queue - base, "--width", "2", "--warm",
             "--value", queue, "--count", COUNT)  # fmt: skip
    with counting(assigned.machine, "memory_region_ops_write") as counts:
        assigned.os.probe(*words)
    return counts


def check_kept_by_kernel(counts: Counts) -> None:
    """The writes left the guest, and QEMU heard of none."""
    served = counts.events.get(f"memory_region_ops_write:{DOORBELLS}", 0)
    left = counts.counters["exits"]
    assert left >= COUNT, f"the guest left {left} times only"
    assert about(served, 0) and about(counts.exits or 0, 0), f"QEMU saw {served}, {counts}"


@only("edu")
@pytest.mark.rule("TRP-12")
def test_doorbells_of_virtio_stay_in_the_kernel(assigned: Assigned) -> None:
    """A doorbell with an eventfd is an exit that QEMU does not see, and no exit for memory."""
    check_kept_by_kernel(rung(assigned, TX))


@only("edu")
@pytest.mark.negative_control("TRP-12")
def test_doorbells_of_nobody_are_noticed(assigned: Assigned) -> None:
    """The doorbell of a queue that is not there has no eventfd: QEMU serves each write."""
    counts = rung(assigned, OF_NOBODY)

    with must_fail():
        check_kept_by_kernel(counts)
