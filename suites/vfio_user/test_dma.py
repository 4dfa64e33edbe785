"""DMA of a device in Python: into a guest's memory and from it, and nowhere else.

In the small guest an address of the device is a physical address. In the virtual host it is an
IOVA that intel-iommu translates, and QEMU tells the device of each mapping. There are two ways:
by the descriptor that came with a mapping, which QEMU does not see, and by message, which goes
through QEMU's own model of the IOMMU and of bus mastering.
"""

from collections.abc import Sequence

import pytest

from harness.device.device import DmaFault
from harness.device.protocol import RequestFailed
from harness.guest.canary import canary
from harness.guest.fault_log import FaultLog
from harness.guest.vfio_driver import VfioDriver, drive
from harness.lab.accesses import counting
from harness.lab.plugged import Plugged
from harness.model.address import AddressRange
from harness.parse.dmesg import FaultKind
from harness.parse.iommu_fault import IommuFault
from harness.parse.trace_log import TraceEvent
from harness.testing import must_fail
from harness.wait import wait_until
from suites.vfio_user.conftest import Prepared
from suites.vfio_user.devices import PAGE, word_at

IOVA = 0x1234_5000
ELSEWHERE = 0x2345_6000
WORD = b"trapline"
MASTER, NO_MASTER = 0x7, 0x3
FROM_QEMU = ("vfio_*", "memory_region_ops_*", "memory_region_ram_device_*")


def refusal_of(plugged: Plugged, address: int, *, by_message: bool) -> str:
    """Let the device read 8 bytes at *address*; return why it could not, '' if it could."""
    try:
        read(plugged, address, 8, by_message=by_message)
    except (DmaFault, RequestFailed) as refused:
        return refused.summary
    return ""


def refusal_of_write(plugged: Plugged, address: int, *, by_message: bool) -> str:
    """Do the same for a write."""
    try:
        write(plugged, address, WORD, by_message=by_message)
    except (DmaFault, RequestFailed) as refused:
        return refused.summary
    return ""


def read(plugged: Plugged, address: int, count: int, *, by_message: bool) -> bytes:
    """Let the device read, by one of the two ways."""
    link = plugged.device.link
    assert link is not None, "no QEMU is connected to the device"
    return (link if by_message else plugged.device).dma_read(address, count)


def write(plugged: Plugged, address: int, data: bytes, *, by_message: bool) -> None:
    """Let the device write, by one of the two ways."""
    link = plugged.device.link
    assert link is not None, "no QEMU is connected to the device"
    (link if by_message else plugged.device).dma_write(address, data)


@pytest.fixture
def bus_master(guest_stage: Prepared) -> Plugged:
    """A device of the small guest that may be bus master."""
    found = guest_stage["open"]
    found.set_command(MASTER)
    return found


WAYS = pytest.mark.parametrize("by_message", [False, True], ids=["descriptor", "message"])


# -- no IOMMU ---------------------------------------------------------------------------------


def check_same(found: bytes, expected: bytes) -> None:
    """What was read is what is there."""
    assert found == expected, f"{found.hex()} was read, {expected.hex()} is there"


@WAYS
@pytest.mark.rule("TRP-19")
def test_device_reads_memory_of_the_guest(bus_master: Plugged, by_message: bool) -> None:
    """The device reads what the guest has in its memory, at its physical address."""
    with canary(bus_master.stage, value=0x1122_3344_5566_7788) as page:
        found = read(bus_master, page.address, 16, by_message=by_message)

    check_same(found, 2 * (0x1122_3344_5566_7788).to_bytes(8, "little"))


@WAYS
@pytest.mark.rule("TRP-19")
def test_device_writes_memory_of_the_guest(bus_master: Plugged, by_message: bool) -> None:
    """What the device writes is in the guest's memory."""
    with canary(bus_master.stage) as page:
        write(bus_master, page.address + 0x100, WORD, by_message=by_message)

        check_same(page.read(0x100, len(WORD)), WORD)


@pytest.mark.negative_control("TRP-19")
def test_memory_that_was_not_written_is_noticed(bus_master: Plugged) -> None:
    """The check fails beside the place that the device wrote."""
    with canary(bus_master.stage) as page:
        write(bus_master, page.address + 0x100, WORD, by_message=False)

        with must_fail():
            check_same(page.read(0x108, len(WORD)), WORD)


def check_unseen(plugged: Plugged, work: int, *, by_message: bool) -> None:
    """DMA leaves no trace in QEMU, and no access reaches the device because of it."""
    with (
        canary(plugged.stage) as page,
        counting(plugged.machine, *FROM_QEMU, "vfio_user_recv_request") as counts,
    ):
        before = plugged.served.accesses.total
        for _ in range(work):
            read(plugged, page.address, 8, by_message=by_message)
        after = plugged.served.accesses.total
    seen = {name: n for name, n in counts.events.items() if name.startswith("vfio")}
    assert (seen, after - before) == ({}, 0), f"{seen}, {after - before} accesses"


@pytest.mark.rule("TRP-19")
def test_dma_is_no_trap(bus_master: Plugged) -> None:
    """A thousand reads by the device make no trap and no trace in QEMU."""
    check_unseen(bus_master, 1000, by_message=False)


@pytest.mark.negative_control("TRP-19")
def test_dma_through_qemu_is_noticed(bus_master: Plugged) -> None:
    """The check fails where QEMU reads on behalf of the device."""
    with must_fail():
        check_unseen(bus_master, 10, by_message=True)


def check_refused(plugged: Plugged, address: int, *, by_message: bool) -> None:
    """The device cannot read at *address*."""
    refusal = refusal_of(plugged, address, by_message=by_message)
    assert refusal, f"DMA at {address:#x} went through"


@WAYS
@pytest.mark.parametrize("address", [0x4000_0000, 1 << 40], ids=hex)
def test_dma_beside_memory_is_refused(bus_master: Plugged, address: int, by_message: bool) -> None:
    """Where the guest has no memory, there is nothing for the device."""
    check_refused(bus_master, address, by_message=by_message)


@WAYS
def test_dma_to_memory_is_not_refused(bus_master: Plugged, by_message: bool) -> None:
    """The check fails where the guest has memory."""
    with must_fail():
        check_refused(bus_master, 0x10_0000, by_message=by_message)


# -- bus mastering ----------------------------------------------------------------------------


@WAYS
@pytest.mark.rule("RST-10")
def test_dma_stops_without_bus_mastering(guest_stage: Prepared, by_message: bool) -> None:
    """With COMMAND.BME clear, which the device is told, no DMA of the device goes through.

    By message QEMU refuses it. By descriptor only the device itself can: QEMU has given the
    guest's memory away and does not take it back.
    """
    plugged = guest_stage["closed"]
    plugged.set_command(NO_MASTER)

    assert plugged.device.config.read(4, 1) == bytes([NO_MASTER])
    check_refused(plugged, 0x10_0000, by_message=by_message)


@WAYS
@pytest.mark.negative_control("RST-10")
def test_dma_of_a_bus_master_is_noticed(bus_master: Plugged, by_message: bool) -> None:
    """The check fails with COMMAND.BME set."""
    with must_fail():
        check_refused(bus_master, 0x10_0000, by_message=by_message)


# -- behind intel-iommu -----------------------------------------------------------------------


@WAYS
@pytest.mark.rule("NST-19")
def test_iova_is_translated(worker: Plugged, driver: VfioDriver, by_message: bool) -> None:
    """At an IOVA the device finds the page that its driver mapped there, both ways."""
    physical = driver.map(IOVA)
    driver.put(IOVA, WORD)

    found = read(worker, IOVA, len(WORD), by_message=by_message)
    write(worker, IOVA + 0x800, found[::-1], by_message=by_message)

    assert physical != IOVA
    check_same(driver.get(IOVA + 0x800, len(WORD)), WORD[::-1])


@pytest.mark.negative_control("NST-19")
def test_page_without_dma_is_noticed(driver: VfioDriver) -> None:
    """The check fails for a page that the device did not write."""
    driver.map(IOVA)

    with must_fail():
        check_same(driver.get(IOVA + 0x800, len(WORD)), WORD[::-1])


@WAYS
@pytest.mark.rule("NST-20")
def test_dma_outside_of_the_mapping_is_refused(
    worker: Plugged, driver: VfioDriver, by_message: bool
) -> None:
    """Beside what its driver mapped the device reaches nothing: the address is only physical."""
    driver.map(IOVA)

    with canary(worker.stage) as page:
        check_refused(worker, page.address, by_message=by_message)

        assert refusal_of_write(worker, page.address, by_message=by_message) and page.intact


@WAYS
@pytest.mark.negative_control("NST-20")
def test_dma_inside_of_the_mapping_is_not_refused(
    worker: Plugged, driver: VfioDriver, by_message: bool
) -> None:
    """The check fails for the page that is mapped."""
    driver.map(IOVA)

    with must_fail():
        check_refused(worker, IOVA, by_message=by_message)


def check_reported(faults: Sequence[IommuFault], plugged: Plugged, address: int) -> None:
    """The kernel names the function and the address of a fault."""
    found = [(fault.kind, fault.source, fault.address) for fault in faults]
    assert found == [(FaultKind.DMA_READ, plugged.bdf, address)], faults


@pytest.mark.rule("NST-20", "VTD-51")
def test_fault_is_reported(worker: Plugged, driver: VfioDriver) -> None:
    """A read by message beside the mapping makes intel-iommu fault, and Linux says where."""
    driver.map(IOVA)
    log = FaultLog.listen(worker.stage)

    refusal_of(worker, ELSEWHERE, by_message=True)

    check_reported(log.soon(), worker, ELSEWHERE)


@pytest.mark.negative_control("NST-20", "VTD-51")
def test_silence_after_good_dma_is_noticed(worker: Plugged, driver: VfioDriver) -> None:
    """The check fails after DMA that was allowed."""
    driver.map(IOVA)
    log = FaultLog.listen(worker.stage)

    refusal_of(worker, IOVA, by_message=True)

    with must_fail():
        check_reported(log.faults(), worker, IOVA)


@WAYS
@pytest.mark.rule("NST-20")
def test_unmapped_page_is_taken_away(
    worker: Plugged, driver: VfioDriver, by_message: bool
) -> None:
    """What its driver unmaps the device cannot reach any more."""
    driver.map(IOVA)
    driver.unmap(IOVA)

    check_refused(worker, IOVA, by_message=by_message)


# -- what the device is told ------------------------------------------------------------------


def check_windows(plugged: Plugged, *expected: tuple[int, int]) -> None:
    """The device was told of these ranges, address and size, and of no other."""
    found = tuple((window.address, window.size) for window in plugged.device.dma.windows)
    assert found == expected, [(hex(address), hex(size)) for address, size in found]


def check_walked(events: tuple[TraceEvent, ...], address: int) -> None:
    """The vIOMMU found the page at *address* when it walked the guest's table."""
    found = [event for event in events if event.fields.get("iova") == address]
    assert found, f"no vtd_page_walk_one of {address:#x} among {events}"


@pytest.mark.rule("VTD-57")
def test_each_mapping_is_told(worker: Plugged, driver: VfioDriver) -> None:
    """Each map of the driver is seen by the vIOMMU (caching mode), and told to the device."""
    with worker.machine.tracing("vtd_page_walk_one") as window:
        driver.map(IOVA)
        driver.map(ELSEWHERE)

    check_walked(window.events, IOVA)
    check_windows(worker, (IOVA, PAGE), (ELSEWHERE, PAGE))


@pytest.mark.negative_control("VTD-57")
def test_mapping_that_was_not_told_is_noticed(worker: Plugged, driver: VfioDriver) -> None:
    """The checks fail for a page that was not mapped, and for one that still is."""
    with worker.machine.tracing("vtd_page_walk_one") as window:
        driver.map(IOVA)

    with must_fail():
        check_walked(window.events, ELSEWHERE)
    with must_fail():
        check_windows(worker, (IOVA, PAGE), (ELSEWHERE, PAGE))
    with must_fail():
        check_windows(worker)


@pytest.mark.rule("VTD-57")
def test_nothing_is_left_after_the_driver(worker: Plugged, host_stage: Prepared) -> None:
    """When its driver ends, every mapping of the device is gone."""
    with drive(host_stage.stage.host, worker.bdf) as short:
        short.map(IOVA)
        short.map(ELSEWHERE)

    # The kernel closes its file when it has gone, not when it was told to.
    wait_until("the driver's mappings gone", lambda: not worker.device.dma.windows, timeout=5)
    check_windows(worker)


# -- from device to device --------------------------------------------------------------------


def check_reachable(plugged: Plugged, other: Plugged, bar: int, *areas: AddressRange) -> None:
    """These parts of a BAR of *other*, and no more, were given to *plugged* for its DMA."""
    where = other.window(bar)
    windows = [AddressRange(w.address, w.size) for w in plugged.device.dma.windows]
    found = [window for window in windows if window.overlaps(where)]
    expected = [area.shifted(where.start) for area in areas]
    assert found == expected, f"{found}, not {expected}"


WHOLE_PAGES = {
    0: (AddressRange(0, PAGE), AddressRange(3 * PAGE, PAGE)),
    2: (AddressRange(0, PAGE), AddressRange(3 * PAGE, PAGE)),
}
"""Of `Shades`: what of a BAR is mapped, in whole pages. MSI-X table and PBA break up BAR 2."""


@pytest.mark.parametrize("bar", [0, 2])
@pytest.mark.rule("MAP-30")
def test_mapped_pages_are_given_to_other_devices(guest_stage: Prepared, bar: int) -> None:
    """Whole mapped pages of a device are mapped for DMA of another one, fragments are not."""
    check_reachable(guest_stage["open"], guest_stage["shades"], bar, *WHOLE_PAGES[bar])


@pytest.mark.negative_control("MAP-30")
def test_trapped_pages_are_not_taken_for_given(guest_stage: Prepared) -> None:
    """The check fails for a device that nothing is mapped of."""
    with must_fail():
        check_reachable(guest_stage["open"], guest_stage["closed"], 0, *WHOLE_PAGES[0])


@pytest.mark.rule("MAP-30")
def test_device_reads_another_device(guest_stage: Prepared, bus_master: Plugged) -> None:
    """DMA to such a page reads the other device, and is no access that it is told of."""
    shades = guest_stage["shades"]
    before = shades.served.accesses.total

    found = read(bus_master, shades.window(0).start + 8, 4, by_message=True)

    check_same(found, word_at(0, 8).to_bytes(4, "little"))
    assert shades.served.accesses.total == before
