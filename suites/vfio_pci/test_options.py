"""Properties of vfio-pci that change the map."""

from collections.abc import Mapping

import pytest

from harness.lab.assigned import Assigned
from harness.model.memory_map import Kind, MemoryMap
from harness.model.vfio.mapping import guest_layout
from harness.suite_fixtures import FirmwareOnly
from harness.testing import must_fail, only
from suites.vfio_pci.conftest import VARIANTS

MAC_ADDRESS = 0x5400
"""RAL0 and RAH0 of e1000e: loaded from its EEPROM by each reset, read without side effect."""


def check_nothing_is_mapped(assigned: Assigned, found: MemoryMap) -> None:
    """The device has rows, and none of them is RAM."""
    kinds = {row.kind for row in found.memory.owned_by(assigned.name)}
    assert kinds == {Kind.IO}, kinds


@pytest.mark.parametrize("name", ["e1000e", "edu"])
@pytest.mark.rule("MAP-18")
def test_no_mmap_leaves_no_ramd(variants: Mapping[str, Assigned], name: str) -> None:
    """With ``x-no-mmap=on`` no row of the device is ramd; the rest of the map is as ever."""
    found = variants[name].memory_map()

    check_nothing_is_mapped(variants[name], found)
    expected = variants[name].expectation()
    assert not expected.compare(found), expected.explain(found)


@pytest.mark.negative_control("MAP-18")
def test_mapped_device_is_noticed(variants: Mapping[str, Assigned]) -> None:
    """The check fails on a device without the property."""
    with must_fail():
        check_nothing_is_mapped(variants["nvme"], variants["nvme"].memory_map())


def check_slow_and_equal(slow: Assigned, offset: int, data: tuple[int, ...]) -> None:
    """Reads at *offset* of BAR 0 are served through the kernel, and give *data*."""
    with slow.machine.tracing("vfio_region_read", "memory_region_ram_device_read") as window:
        words = slow.examine(0, offset, len(data)).words
    # One access of 8 bytes or two of 4: vfio_region_ops grew wider in 10.0.
    served = {
        name: sum(event.number("size") for event in window.events if event.name == name)
        for name in window.counts()
    }
    assert served == {"vfio_region_read": 4 * len(data)}, window.events
    assert words == data


@only("e1000e")
@pytest.mark.full
@pytest.mark.rule("TRP-08", "MAP-18")
def test_no_mmap_gives_the_same_data(assigned: Assigned, firmware_only: FirmwareOnly) -> None:
    """What the guest reads directly by default, ``x-no-mmap`` serves by ``vfio_region_read``."""
    direct = assigned.words(0, MAC_ADDRESS, 2)

    slow = firmware_only(each=VARIANTS).assigned["e1000e"]

    check_slow_and_equal(slow, MAC_ADDRESS, direct)


@pytest.mark.full
@pytest.mark.negative_control("TRP-08", "MAP-18")
def test_mapped_data_is_not_taken_for_slow(variants: Mapping[str, Assigned]) -> None:
    """The check fails on a mapped device, whatever its data."""
    nvme = variants["nvme"]
    data = nvme.examine(0, 0, 2).words

    with must_fail():
        check_slow_and_equal(nvme, 0, data)


@pytest.mark.full
@pytest.mark.negative_control("TRP-08")
def test_other_data_is_noticed(variants: Mapping[str, Assigned]) -> None:
    """The check fails when the slow path gives other words."""
    slow = variants["e1000e"]
    other = tuple(word ^ 1 for word in slow.examine(0, MAC_ADDRESS, 2).words)

    with must_fail():
        check_slow_and_equal(slow, MAC_ADDRESS, other)


def check_relocated(assigned: Assigned, found: MemoryMap) -> None:
    """The table is the only trapped part of BAR 0 to 5 and lies in the BAR that was named."""
    layout = guest_layout(
        assigned.function,
        VARIANTS["nvme"],
        page=assigned.host.page_size,
        qemu=assigned.host.qemu.version,
    )
    msix = layout.msix
    assert msix is not None
    start = assigned.machine.bar_addresses(assigned.name).get(msix.table_bar)
    assert start is not None, "the device has no such BAR"
    table = [row.range for row in found.memory.owned_by(assigned.name) if row.name == "msix-table"]
    assert table == [msix.table.shifted(start)], table
    own = found.memory.covering(assigned.window(0))
    assert [(row.kind, row.range) for row in own] == [(Kind.RAMD, assigned.window(0))], own


@pytest.mark.rule("MAP-20")
def test_relocated_table_leaves_its_bar(variants: Mapping[str, Assigned]) -> None:
    """``x-msix-relocation=bar2`` makes a BAR for the table; BAR 0 is mapped whole."""
    nvme = variants["nvme"]
    found = nvme.memory_map()

    check_relocated(nvme, found)
    assert not nvme.expectation().compare(found), nvme.expectation().explain(found)


@only("nvme")
@pytest.mark.negative_control("MAP-20")
def test_table_in_its_place_is_noticed(assigned: Assigned) -> None:
    """The check fails on the device as it is by default."""
    with must_fail():
        check_relocated(assigned, assigned.memory_map())
