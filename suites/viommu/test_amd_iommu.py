"""amd-iommu: its names, its table, and what it says to assigned functions."""

from dataclasses import replace

import pytest

from harness.guest.system import System
from harness.host.host import Host
from harness.host.virtual_spec import assigned_device
from harness.lab.nested import Nested
from harness.model.memory_map import MemoryMap
from harness.suite_fixtures import Attempt, Free
from harness.testing import must_fail, skip
from suites.viommu.conftest import AMD, VIRTIO, LookAt, machine_with, os_of

NEW, OLD = {"amdvi-ir"}, {"amd_iommu_ir"}
"""Names of the region for interrupts, since 10.0 and before."""


def names_in(found: MemoryMap) -> set[str]:
    """Return the names of roots, address spaces and rows."""
    spaces = {name for view in found for s in view.spaces for name in (s.name, s.root)}
    return spaces | {row.name for view in found for row in view.regions}


def check_names(host: Host, names: set[str]) -> None:
    """The names are those of the version: none of the other's, one of its own at least."""
    mine, others = (NEW, OLD) if host.qemu.version.has(10, 0) else (OLD, NEW)
    assert mine & names and not others & names, sorted(names)


@pytest.mark.rule("VIO-14")
def test_names_are_those_of_the_version(host: Host, looked_at: LookAt) -> None:
    """QEMU 10.0 gave the region where amd-iommu takes interrupts another name."""
    check_names(host, names_in(looked_at(AMD)))


@pytest.mark.negative_control("VIO-14")
def test_names_of_another_iommu_are_noticed(host: Host, looked_at: LookAt) -> None:
    """A machine with another IOMMU has none of them."""
    names = names_in(looked_at(VIRTIO))

    with must_fail():
        check_names(host, names)
    with must_fail():
        check_names(host, names | NEW | OLD)


IVRS = "/sys/firmware/acpi/tables/IVRS"


def check_found(system: System) -> None:
    """The guest has the table, says so in its log, has the device, and functions in groups."""
    assert system.exists(IVRS)
    assert "AMD-Vi: " in system.kernel_log()
    assert system.exists("/sys/class/iommu/ivhd0")
    assert system.iommu_groups()


@pytest.mark.full
@pytest.mark.rule("VIO-15")
def test_guest_finds_it_by_its_table(amd_guest: Nested) -> None:
    """Linux finds an amd-iommu by the ACPI table IVRS, and makes groups."""
    check_found(os_of(amd_guest))


@pytest.mark.full
@pytest.mark.negative_control("VIO-15")
def test_a_guest_without_is_noticed(nested: Nested) -> None:
    """A guest without it has no such table."""
    with must_fail():
        check_found(os_of(nested))


NO_NOTIFIER = "requires iommu notifier which is not currently supported"


def can_remap(host: Host) -> bool:
    """Say whether amd-iommu can follow what a guest maps for an assigned function."""
    return "dma-remap" in host.qemu.features.device_properties(AMD.driver)


@pytest.fixture
def cannot_remap(host: Host) -> None:
    """The QEMU under test has no dma-remap."""
    if can_remap(host):
        skip(f"QEMU {host.qemu.version} has dma-remap", enabled_by="QEMU 10.1 or before")


@pytest.fixture
def remaps(host: Host) -> None:
    """The QEMU under test has dma-remap."""
    if not can_remap(host):
        skip(f"QEMU {host.qemu.version} has no dma-remap", enabled_by="QEMU 10.2 or later")


def check_refused(said: str) -> None:
    """QEMU refuses the function, and says what it would need."""
    assert NO_NOTIFIER in said, said or "accepted"


@pytest.mark.rule("VIO-11")
@pytest.mark.usefixtures("cannot_remap")
def test_assigned_functions_are_refused(host: Host, free: Free, attempt: Attempt) -> None:
    """amd-iommu takes no assigned functions before 10.2."""
    device = assigned_device("nvme", str(free("nvme").bdf))

    check_refused(attempt(host, machine_with(host, AMD, device)))


@pytest.mark.negative_control("VIO-11")
def test_an_iommu_that_takes_them_is_noticed(host: Host, free: Free, attempt: Attempt) -> None:
    """virtio-iommu takes them."""
    device = assigned_device("nvme", str(free("nvme").bdf))
    said = attempt(host, machine_with(host, VIRTIO, device))

    with must_fail():
        check_refused(said)


def check_taken(said: str) -> None:
    """QEMU takes the function."""
    assert not said, said


@pytest.mark.rule("VIO-12")
@pytest.mark.usefixtures("remaps")
@pytest.mark.parametrize("dma_remap", [False, True])
def test_assigned_functions_are_taken(
    host: Host, free: Free, attempt: Attempt, dma_remap: bool
) -> None:
    """Since 10.2 it takes them, with dma-remap and without: nothing is translated at first."""
    device = assigned_device("nvme", str(free("nvme").bdf))
    iommu = replace(AMD, options={**AMD.options, "dma-remap": dma_remap})

    check_taken(attempt(host, machine_with(host, iommu, device)))


@pytest.mark.negative_control("VIO-12")
def test_a_function_that_is_not_there_is_noticed(host: Host, attempt: Attempt) -> None:
    """A function that the host does not have is refused."""
    device = assigned_device("nvme", "0000:7f:1f.7")
    said = attempt(host, machine_with(host, AMD, device))

    with must_fail():
        check_taken(said)
