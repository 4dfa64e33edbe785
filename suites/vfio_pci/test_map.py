"""The map of an assigned function, byte for byte."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from harness.lab.assigned import Assigned
from harness.model.address import AddressRange
from harness.model.memory_map import Kind, MemoryMap, Region
from harness.model.vfio.mapping import VfioOptions
from harness.testing import must_fail, only


def check_map(assigned: Assigned, found: MemoryMap) -> None:
    """Each row of each BAR is what device, kernel and options imply."""
    expected = assigned.expectation()
    assert not expected.compare(found), expected.explain(found)


@pytest.mark.rule("MAP-01", "MAP-04", "MAP-28", "NM-01", "NST-22")
def test_map_is_what_the_device_implies(assigned: Assigned) -> None:
    """Every byte of every BAR is mapped or trapped as device, kernel and options imply."""
    check_map(assigned, assigned.memory_map())


@pytest.mark.parametrize("name", ["e1000e", "edu"])
@pytest.mark.negative_control("MAP-01", "MAP-04", "NM-01", "NST-22")
def test_device_mapped_otherwise_is_noticed(variants: Mapping[str, Assigned], name: str) -> None:
    """A device that QEMU maps in another way than by default fails the check."""
    taken_for_default = replace(variants[name], options=VfioOptions())

    with must_fail():
        check_map(taken_for_default, taken_for_default.memory_map())


# -- the MSI-X structures ---------------------------------------------------------------------


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


def check_pba_is_mapped(assigned: Assigned, found: MemoryMap) -> None:
    """The pending bits are in a ramd row."""
    msix = assigned.msix
    pba = msix.pba.shifted(assigned.window(msix.pba_bar).start)
    rows = found.memory.covering(pba)
    assert [row.kind for row in rows] == [Kind.RAMD], rows


@only("nvme", "e1000e", "igb")
@pytest.mark.rule("MAP-09")
def test_pending_bits_are_mapped(assigned: Assigned) -> None:
    """While nothing is pending, the page of the pending bits is the device's own."""
    check_pba_is_mapped(assigned, assigned.memory_map())


@pytest.mark.negative_control("MAP-09")
def test_trapped_pending_bits_are_noticed(variants: Mapping[str, Assigned]) -> None:
    """The check fails on a device that is not mapped."""
    with must_fail():
        check_pba_is_mapped(variants["e1000e"], variants["e1000e"].memory_map())


# -- ports ------------------------------------------------------------------------------------


def check_ports(window: AddressRange, found: MemoryMap) -> None:
    """The BAR is one i/o row among the ports, called ``BAR n``."""
    rows = found.ports.covering(window)
    assert [(row.kind, row.range) for row in rows] == [(Kind.IO, window)], rows


@only("e1000e", "igb")
@pytest.mark.rule("MAP-11")
def test_ports_are_not_mapped(assigned: Assigned) -> None:
    """A BAR of I/O ports is one i/o row of the address space of ports."""
    check_ports(assigned.window(2), assigned.memory_map())


@only("e1000e")
@pytest.mark.negative_control("MAP-11")
def test_ports_that_are_mapped_are_noticed(assigned: Assigned) -> None:
    """A map whose ports are RAM of the device fails the check."""
    mapped = assigned.memory_map().altered(lambda row: replace(row, kind=Kind.RAMD))

    with must_fail():
        check_ports(assigned.window(2), mapped)


# -- where the guest put it -------------------------------------------------------------------


def check_guest_agrees(assigned: Assigned, found: MemoryMap) -> None:
    """The device's rows fill exactly the memory BARs that the guest's sysfs shows."""
    bars = [bar.range for bar in assigned.seen_by_guest().bars if bar.is_memory]
    rows = [row.range for row in found.memory.owned_by(assigned.name)]
    assert all(any(bar.covers(row) for bar in bars) for row in rows), (bars, rows)
    assert sum(row.size for row in rows) == sum(bar.size for bar in bars), (bars, rows)


@pytest.mark.rule("MAP-28")
def test_rows_are_where_the_guest_put_the_bars(assigned: Assigned) -> None:
    """The guest's ``resource`` file names the same addresses as the map."""
    check_guest_agrees(assigned, assigned.memory_map())


@only("edu")
@pytest.mark.negative_control("MAP-28")
def test_bars_elsewhere_are_noticed(assigned: Assigned) -> None:
    """A map that is one page off fails the check."""
    off = assigned.memory_map().altered(lambda row: replace(row, range=row.range.shifted(4096)))

    with must_fail():
        check_guest_agrees(assigned, off)


def check_gone(assigned: Assigned, found: MemoryMap) -> None:
    """No row of guest memory belongs to the device."""
    assert not found.memory.owned_by(assigned.name), found.memory.owned_by(assigned.name)


@only("edu")
@pytest.mark.rule("MAP-27")
def test_nothing_is_left_while_memory_decoding_is_off(assigned: Assigned) -> None:
    """COMMAND.MSE = 0 takes the BARs out of the map; setting it brings them back."""
    before = assigned.memory_map()

    with assigned.decoding_off():
        check_gone(assigned, assigned.memory_map())

    assert assigned.memory_map().memory.regions == before.memory.regions


@only("edu")
@pytest.mark.negative_control("MAP-27")
def test_bars_that_stay_are_noticed(assigned: Assigned) -> None:
    """While it decodes, the check for nothing left fails."""
    with must_fail():
        check_gone(assigned, assigned.memory_map())
