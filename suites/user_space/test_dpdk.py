"""DPDK's testpmd in a guest: packets are counted at both ends of the cable, by it and by us."""

from __future__ import annotations

import pytest

from harness.guest.testpmd import Memory
from harness.guest.vfio_driver import drive
from harness.lab.driver_guest import DriverGuest, Forwarding
from harness.machine.traces import TraceWindow
from harness.parse.dmesg import dmar_faults
from harness.testing import must_fail

pytestmark = pytest.mark.full

FRAMES = 64
UIO, VFIO = "uio_pci_generic", "vfio-pci"
INVALIDATIONS = ("vtd_inv_desc_iotlb_pages", "vtd_inv_desc_iotlb_domain",
                 "vtd_inv_desc_iotlb_global")  # fmt: skip
"""With caching mode a guest asks for one each time that it maps or unmaps (VT-d 6.1)."""


def forward(
    guest: DriverGuest, name: str, driver: str, memory: Memory, *, patience: float = 120
) -> tuple[int, Forwarding, TraceWindow]:
    """Let testpmd forward `FRAMES` frames of the card *name*, which *driver* has.

    Return how many came back, the run, and the invalidations while they did.
    """
    nic = guest.nic(name)
    window = guest.machine.tracing(*INVALIDATIONS)
    with (
        guest.host.bound(nic.bdf, driver),
        guest.forwarding(nic, memory, patience=patience) as run,
        window,
    ):
        back = run.exchange(FRAMES if run.started else 0)
    return back, run, window


def check_forwarded(back: int, run: Forwarding) -> None:
    """Every frame came back, and both ends counted the same, both ways."""
    assert run.counts is not None
    seen = (back, run.counts.received, run.counts.sent, run.counts.sent_dropped)
    assert seen == (FRAMES, run.returned, run.returned, 0), f"{seen}; {run.returned} came to us"


@pytest.mark.parametrize("name", ["e1000e", "igb", "virtio-net"])
@pytest.mark.rule("UIO-07")
def test_packets_move_by_vfio_below_an_iommu(shielded_guest: DriverGuest, name: str) -> None:
    """Below a vIOMMU DPDK drives a card by vfio, with no address that is physical."""
    back, run, _ = forward(shielded_guest, name, VFIO, Memory.PAGES)

    check_forwarded(back, run)


@pytest.mark.parametrize("name", ["e1000e", "igb"])
@pytest.mark.rule("UIO-01")
def test_packets_move_by_uio_without_an_iommu(bare_guest: DriverGuest, name: str) -> None:
    """Without an IOMMU DPDK drives a card by UIO: it tells the device physical addresses."""
    back, run, _ = forward(bare_guest, name, UIO, Memory.PHYSICAL)

    check_forwarded(back, run)


@pytest.mark.rule("UIO-01")
def test_packets_move_without_iommu_by_vfio(unsafe_guest: DriverGuest) -> None:
    """Where vfio may do without an IOMMU, DPDK drives a card so, by physical addresses."""
    back, run, _ = forward(unsafe_guest, "e1000e", VFIO, Memory.PHYSICAL)

    check_forwarded(back, run)


@pytest.mark.negative_control("UIO-07")
def test_no_packet_moves_by_uio_below_an_iommu(shielded_guest: DriverGuest) -> None:
    """Below a vIOMMU physical addresses lead nowhere: no packet moves, and the check fails."""
    mark = shielded_guest.host.kernel_log_mark()
    back, run, _ = forward(shielded_guest, "e1000e-by-uio", UIO, Memory.PHYSICAL, patience=8)

    with must_fail():
        check_forwarded(back, run)
    log = shielded_guest.host.kernel_log_since(mark).splitlines()
    assert {fault.source for fault in dmar_faults(log)} == {run.nic.bdf}, log


def check_static(window: TraceWindow) -> None:
    """No mapping changed meanwhile."""
    assert not window.unknown, f"this QEMU does not trace {window.unknown}"
    assert window.counts() == {}, window.counts()


@pytest.mark.rule("UIO-08")
def test_mappings_of_huge_pages_are_static(shielded_guest: DriverGuest) -> None:
    """While DPDK forwards packets in huge pages, no mapping of the vIOMMU changes."""
    back, run, window = forward(shielded_guest, "e1000e", VFIO, Memory.HUGE)

    check_forwarded(back, run)
    check_static(window)


@pytest.mark.negative_control("UIO-08")
def test_a_driver_that_maps_is_noticed(shielded_guest: DriverGuest) -> None:
    """A driver that maps and unmaps a page each time has its mappings followed."""
    guest, bdf = shielded_guest, shielded_guest.edu().bdf
    window = guest.machine.tracing(*INVALIDATIONS)
    with guest.host.bound(bdf, VFIO), drive(guest.host, bdf) as driver, window:
        driver.map(0x10_0000)
        driver.unmap(0x10_0000)

    with must_fail():
        check_static(window)
