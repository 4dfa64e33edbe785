"""A BAR of an emulated device with places where nobody answers."""

from __future__ import annotations

import pytest

from harness.lab.accesses import READ_EVENTS
from harness.lab.driver_guest import DriverGuest
from harness.machine.command import Device
from harness.model.address import AddressRange
from harness.model.memory_map import FlatView
from harness.testing import must_fail

pytestmark = pytest.mark.full

NVME = Device("nvme", "nvme", "rp6", "0", {"serial": "null", "drive": "null"})
DISK = {"driver": "null-co", "node-name": "null", "size": 1 << 20, "read-zeroes": True}
SIZE = 0x4000
"""Of its BAR 0: registers and doorbells, MSI-X table, pending bits."""
READS = 20


@pytest.fixture(scope="module")
def nvme(bare_guest: DriverGuest) -> DriverGuest:
    """The guest, with an nvme that decodes memory."""
    bare_guest.machine.qmp.execute("blockdev-add", DISK)
    bdf = bare_guest.plug(NVME).bdf
    bare_guest.host.probe("config", "write", str(bdf), 0x04, "--width", "2", "--value", 0x2)
    return bare_guest


def holes(view: FlatView, window: AddressRange) -> list[int]:
    """Return where in *window* the stretches begin that no row of *view* covers, as offsets."""
    found, at = [], window.start
    for row in sorted(view.covering(window), key=lambda row: row.range.start):
        if row.range.start > at:
            found.append(at - window.start)
        at = max(at, row.range.end)
    return found + ([at - window.start] if at < window.end else [])


def check_nobody_answers(guest: DriverGuest, offset: int) -> None:
    """The guest reads zeros there, and no region serves it."""
    bdf = guest.plug(NVME).bdf
    with guest.machine.tracing(*READ_EVENTS) as window:
        said = guest.host.probe(
            "mem", "read", guest.host.resource_file(bdf, 0), offset, "--count", READS
        )
    served = [event for event in window.events if "nvme" in str(event.fields.get("name", ""))]
    assert (int(said["last"], 16), len(served)) == (0, 0), (said, window.counts())


@pytest.mark.rule("ENV-17")
def test_a_bar_may_have_holes(nvme: DriverGuest) -> None:
    """Between the registers and the MSI-X table of an nvme nobody answers: a guest reads 0."""
    start = nvme.machine.bar_addresses("nvme")[0]
    found = holes(nvme.machine.memory_map().memory, AddressRange(start, SIZE))
    assert found, f"rows cover all of BAR 0 at {start:#x}"

    check_nobody_answers(nvme, found[0])


@pytest.mark.negative_control("ENV-17")
def test_a_register_is_noticed(nvme: DriverGuest) -> None:
    """The first register of the same BAR is traced, and not 0."""
    with must_fail():
        check_nobody_answers(nvme, 0)
