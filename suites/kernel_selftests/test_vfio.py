"""``tools/testing/selftests/vfio``: what Linux itself asks of vfio and its IOMMU."""

from collections.abc import Iterator

import pytest

from harness.guest.huge_pages import huge_pages
from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.model.pci import PciFunction
from harness.suite_fixtures import Free
from harness.testing import must_fail, skip
from suites.kernel_selftests.conftest import (
    COPIES,
    DEVICE,
    DRIVERS,
    MAPPINGS,
    OVERFLOW,
    REGISTERS,
    SETUP,
    TYPE1,
    Program,
    check_report,
    mapping_variants,
    no_iommufd,
    no_mappings,
    says_overflow,
)

pytestmark = pytest.mark.full


@pytest.fixture
def igb(free: Free) -> PciFunction:
    """The function that the tests have a driver for, in the hands of vfio-pci."""
    return free("igb")


@pytest.fixture
def refuses_overflow(host: Host) -> None:
    """The kernel says EOVERFLOW of such a range: since 6.18 (LST-02)."""
    if not says_overflow(host):
        skip(f"Linux {host.kernel} has other words for that", enabled_by="Linux 6.18 or later")


@pytest.fixture
def four_huge_pages(host: Host) -> Iterator[None]:
    """The host has four pages of 2 MiB that a program may ask for."""
    with huge_pages(host, 4):
        yield


@pytest.mark.rule("LST-02")
@pytest.mark.usefixtures("four_huge_pages")
def test_memory_is_mapped_and_unmapped(
    program: Program, igb: PciFunction, mode: str, subtests: pytest.Subtests
) -> None:
    """Memory is mapped with pages of its size, and unmapped; so is the end of all addresses."""
    test = program(MAPPINGS)

    check_report(
        test.run(igb.bdf, variants=mapping_variants(mode), leave_out=[OVERFLOW]), subtests
    )


@pytest.mark.rule("LST-02")
@pytest.mark.usefixtures("refuses_overflow")
def test_a_range_beyond_all_addresses_is_refused(
    program: Program, igb: PciFunction, mode: str
) -> None:
    """A range that goes beyond the last address is neither mapped nor unmapped: EOVERFLOW."""
    test = program(MAPPINGS)

    report = test.run(igb.bdf, variants=[mode], leave_out=["unmap_range", "unmap_all"])

    check_report(report)


@pytest.mark.negative_control("LST-02")
@pytest.mark.usefixtures("with_type1")
def test_memory_that_is_not_mapped_is_noticed(
    host: Host, program: Program, igb: PciFunction
) -> None:
    """Where the kernel allows no mapping, its tests of mappings fail."""
    test = program(MAPPINGS)

    with no_mappings(host):
        report = test.run(igb.bdf, variants=mapping_variants(TYPE1), leave_out=[OVERFLOW])

    with must_fail():
        check_report(report)


@pytest.mark.rule("LST-05")
def test_registers_are_mapped_by_type1_alone(
    program: Program, igb: PciFunction, mode: str, subtests: pytest.Subtests
) -> None:
    """BARs, whole, in part, misaligned, go into the IOMMU by type 1, and never by iommufd."""
    check_report(program(REGISTERS).run(igb.bdf, variants=[mode]), subtests)


@pytest.mark.negative_control("LST-05")
@pytest.mark.usefixtures("with_type1")
def test_registers_that_are_not_mapped_are_noticed(
    host: Host, program: Program, igb: PciFunction
) -> None:
    """Where the kernel allows no mapping, BARs are not mapped either."""
    test = program(REGISTERS)

    with no_mappings(host):
        report = test.run(igb.bdf, variants=[TYPE1])

    with must_fail():
        check_report(report)


# -- with iommufd, which these go by unless they name another way -------------------------------


@pytest.mark.rule("LST-01")
@pytest.mark.usefixtures("with_iommufd")
@pytest.mark.parametrize("name", ["e1000e", "igb", "nvme"])
def test_devices_are_configured_and_interrupt(
    program: Program, free: Free, name: str, subtests: pytest.Subtests
) -> None:
    """Configuration space is written, BARs are mapped, vectors arrive, a reset is made."""
    check_report(program(DEVICE).run(free(name).bdf), subtests)


@pytest.mark.negative_control("LST-01")
@pytest.mark.usefixtures("with_iommufd")
def test_a_device_that_vfio_lacks_is_noticed(
    host: Host, program: Program, igb: PciFunction
) -> None:
    """A function that nobody drives fails them."""
    test = program(DEVICE)

    with host.without_driver(igb.bdf):
        report = test.run(igb.bdf)

    with must_fail():
        check_report(report)


@pytest.mark.rule("LST-03")
@pytest.mark.usefixtures("with_iommufd")
def test_a_device_is_bound_to_iommufd_once(
    program: Program, igb: PciFunction, subtests: pytest.Subtests
) -> None:
    """A device is bound once, to a real iommufd, asked after that, attached to what exists."""
    check_report(program(SETUP).run(igb.bdf), subtests)


@pytest.mark.negative_control("LST-03")
@pytest.mark.usefixtures("with_iommufd")
def test_an_iommufd_that_is_none_is_noticed(
    virtual_host: VirtualHost, program: Program, igb: PciFunction
) -> None:
    """Where /dev/iommu is another device, nothing can be bound."""
    test = program(SETUP)

    with no_iommufd(virtual_host):
        report = test.run(igb.bdf)

    with must_fail():
        check_report(report)


SHARED_PAGES = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"


@pytest.fixture
def large_pages(host: Host) -> Iterator[None]:
    """Shared memory comes in pages of 2 MiB.

    Each test first has a GiB made, pinned and mapped; page by page, on an emulated processor, that
    takes most of the 30 s that each allows itself, or more.
    """
    with host.setting(SHARED_PAGES, "always"):
        yield


@pytest.mark.rule("LST-04")
# Whatever way they go, before any of its tests the program opens the device by iommufd.
@pytest.mark.usefixtures("with_iommufd", "large_pages")
@pytest.mark.parametrize("mode", DRIVERS, indirect=True)
def test_a_device_copies_memory_and_interrupts(
    program: Program, igb: PciFunction, mode: str, subtests: pytest.Subtests
) -> None:
    """The igb copies memory by DMA where it is mapped, and not where it is not; MSI arrive."""
    check_report(program(COPIES).run(igb.bdf, variants=[mode], timeout=300), subtests)


@pytest.mark.negative_control("LST-04")
@pytest.mark.usefixtures("with_iommufd", "with_type1")
def test_a_device_without_memory_is_noticed(
    host: Host, program: Program, igb: PciFunction
) -> None:
    """Where the kernel allows no mapping it has nothing to copy."""
    test = program(COPIES)

    with no_mappings(host):
        report = test.run(igb.bdf, variants=[TYPE1])

    with must_fail():
        check_report(report)


def check_driven_by(host: Host, function: PciFunction, driver: str | None) -> None:
    """The function has this driver."""
    now = host.function(function.bdf).driver
    assert now == driver, f"{function.bdf} is driven by {now}, not {driver}"


@pytest.mark.rule("LST-07")
@pytest.mark.usefixtures("with_type1")
def test_the_driver_is_there_again_after_the_tests(
    host: Host, program: Program, igb: PciFunction
) -> None:
    """A function that was taken from its driver for the kernel's tests is given back to it."""
    test = program(REGISTERS)
    with host.bound(igb.bdf, "igb"):
        with host.bound(igb.bdf):
            check_report(test.run(igb.bdf, variants=[TYPE1]))

        check_driven_by(host, igb, "igb")


@pytest.mark.negative_control("LST-07")
def test_a_function_that_is_not_given_back_is_noticed(host: Host, igb: PciFunction) -> None:
    """One that vfio-pci still has fails the check."""
    with host.bound(igb.bdf, "igb"), host.bound(igb.bdf), must_fail():
        check_driven_by(host, igb, "igb")
