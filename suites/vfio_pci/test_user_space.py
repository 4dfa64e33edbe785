"""What the kernel gives to whoever opens an assigned function, QEMU or not."""

from dataclasses import replace

import pytest

from harness.host.host import Host
from harness.host.vfio_file import MSIX_MAPPABLE, MappingTrial, VfioFile
from harness.model.pci import PciFunction
from harness.suite_fixtures import Free
from harness.testing import must_fail

COMMAND = 0x04
MEMORY_AND_MASTER = 0x6
REGISTERS_OF_E1000E = 0
"""Its BAR 0: mappable, and the MSI-X table is elsewhere."""


def check_may_be_mapped(file: VfioFile, region: int) -> None:
    """The region is mappable, MSI-X table included."""
    found = file.info().region(region)
    assert found.mappable and MSIX_MAPPABLE in found.capabilities, found


@pytest.mark.parametrize("name", ["nvme", "e1000e"])
@pytest.mark.rule("MAP-25")
def test_bar_of_the_table_may_be_mapped(host: Host, free: Free, name: str) -> None:
    """The BAR with the MSI-X table is offered for mapping in full (capability 3)."""
    function = free(name)
    assert function.msix is not None

    check_may_be_mapped(VfioFile(host, function.bdf), function.msix.table_bar)


@pytest.mark.negative_control("MAP-25")
def test_region_without_table_is_noticed(host: Host, free: Free) -> None:
    """The check fails on a region that may be mapped but has no table."""
    file = VfioFile(host, free("e1000e").bdf)

    with must_fail():
        check_may_be_mapped(file, REGISTERS_OF_E1000E)


def check_reads_ones(file: VfioFile, region: int, *offsets: int) -> None:
    """Each word reads as all ones."""
    words = [file.read(region, offset) for offset in offsets]
    assert words == [0xFFFFFFFF] * len(offsets), [hex(word) for word in words]


def table_ends(function: PciFunction) -> tuple[int, int, int]:
    """Return the BAR of the MSI-X table, and the offsets of its first and last word."""
    assert function.msix is not None
    return function.msix.table_bar, function.msix.table.start, function.msix.table.end - 4


@pytest.mark.parametrize("name", ["nvme", "e1000e"])
@pytest.mark.rule("MAP-24")
def test_kernel_hides_the_table(host: Host, free: Free, name: str) -> None:
    """Through the vfio file the MSI-X table reads as all ones, first word to last."""
    function = free(name)

    check_reads_ones(VfioFile(host, function.bdf), *table_ends(function))


@pytest.mark.negative_control("MAP-24")
def test_real_data_is_no_table(host: Host, free: Free) -> None:
    """The check fails for the word behind the table, which the device answers."""
    function = free("nvme")
    bar, _, last = table_ends(function)

    with must_fail():
        check_reads_ones(VfioFile(host, function.bdf), bar, last + 4)


def check_faults(trial: MappingTrial) -> None:
    """While memory was disabled the mapping faulted, and before and after it did not."""
    assert trial.disabled == "sigbus", trial
    assert trial.value == trial.restored != "sigbus", trial


@pytest.mark.rule("MAP-26")
def test_mapping_faults_while_memory_is_disabled(host: Host, free: Free) -> None:
    """With COMMAND.MSE = 0 a mapped BAR gives SIGBUS; set again, it gives the same word."""
    file = VfioFile(host, free("nvme").bdf)

    check_faults(file.map_while_disabled(0, 0, 0x1000))


@pytest.mark.negative_control("MAP-26")
def test_mapping_that_never_faults_is_noticed(host: Host, free: Free) -> None:
    """The check fails if the word read while enabled came while disabled too."""
    trial = VfioFile(host, free("nvme").bdf).map_while_disabled(0, 0, 0x1000)

    with must_fail():
        check_faults(replace(trial, disabled=trial.value))


def check_no_master(command: int) -> None:
    """Bus mastering is off."""
    assert not command & 4, hex(command)


def make_master(host: Host, function: PciFunction) -> None:
    """Set COMMAND bits 1 and 2, as a driver that was careless would leave them."""
    host.probe(
        "config", "write", str(function.bdf), COMMAND, "--width", "2", "--value", MEMORY_AND_MASTER
    )


@pytest.mark.parametrize("name", ["nvme", "edu"])
@pytest.mark.rule("RST-09")
def test_opening_clears_bus_mastering(host: Host, free: Free, name: str) -> None:
    """A function that was a bus master is none when it has been opened."""
    function = free(name)
    make_master(host, function)

    check_no_master(VfioFile(host, function.bdf).info().command)


@pytest.mark.negative_control("RST-09")
def test_master_that_stays_is_noticed(host: Host, free: Free) -> None:
    """The check fails as long as nobody opened the function."""
    function = free("edu")
    make_master(host, function)
    command = host.probe("config", "read", str(function.bdf), COMMAND, "--width", "2")["last"]

    with must_fail():
        check_no_master(int(command, 16))
