"""The map of an assigned function, byte for byte."""

from dataclasses import replace

import pytest

from harness.lab.assigned import Assigned
from harness.model.memory_map import Kind, MemoryMap, Region
from harness.suite_fixtures import FirmwareOnly
from harness.testing import must_fail, only


def check_map(assigned: Assigned, found: MemoryMap) -> None:
    """Each row of each BAR is what device, kernel and options imply."""
    expected = assigned.expectation()
    assert not expected.compare(found), expected.explain(found)


@pytest.mark.rule("MAP-01", "MAP-04", "MAP-11", "MAP-28", "NM-01", "NST-22")
def test_map_is_what_the_device_implies(assigned: Assigned) -> None:
    """Every byte of every BAR is mapped or trapped as device, kernel and options imply."""
    check_map(assigned, assigned.memory_map())


@pytest.mark.negative_control("MAP-01", "MAP-04", "NM-01", "NST-22")
def test_map_without_mmap_is_noticed(firmware_only: FirmwareOnly) -> None:
    """A device that QEMU was told not to map fails the check of its map."""
    trapped = firmware_only("nvme", properties={"x-no-mmap": True}).assigned["nvme"]

    with must_fail():
        check_map(trapped, trapped.memory_map())


def check_table_is_trapped(assigned: Assigned, found: MemoryMap) -> None:
    """The bytes of the MSI-X table, and no others, are one i/o row."""
    rows = found.memory.covering(assigned.table())
    assert [(row.kind, row.range) for row in rows] == [(Kind.IO, assigned.table())], rows


@only("nvme", "e1000e", "igb")
@pytest.mark.rule("MAP-02", "NM-08")
def test_msix_table_is_trapped(assigned: Assigned) -> None:
    """The MSI-X table is trapped: an i/o row of exactly 16 bytes per vector."""
    check_table_is_trapped(assigned, assigned.memory_map())


@only("nvme")
@pytest.mark.negative_control("MAP-02", "NM-08")
def test_msix_table_given_away_is_noticed(assigned: Assigned) -> None:
    """A map whose MSI-X table is RAM of the device fails the check."""

    def given_away(row: Region) -> Region:
        return replace(row, kind=Kind.RAMD) if row.name == "msix-table" else row

    with must_fail():
        check_table_is_trapped(assigned, assigned.memory_map().altered(given_away))
