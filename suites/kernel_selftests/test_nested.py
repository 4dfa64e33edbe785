"""The tests of Linux for vfio in a nested guest: devices of the host behind the guest's IOMMU.

What the guest maps, QEMU must map in the host (caching mode); a reset of the guest's is made by
the host. `vfio_pci_driver_test` stays outside: it pins a GiB, which small guests do not have.
"""

import pytest

from harness.guest.guest import Guest
from harness.model.pci import PciFunction
from harness.suite_fixtures import Free
from harness.testing import must_fail
from suites.kernel_selftests.conftest import (
    DEVICE,
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
def igb(free_inside: Free) -> PciFunction:
    """The igb of the host, in the hands of the guest's vfio-pci."""
    return free_inside("igb")


@pytest.fixture
def unasked(guest: Guest) -> list[str]:
    """Tests that the kernel of the guest is too old for."""
    return [] if says_overflow(guest) else [OVERFLOW]


@pytest.mark.rule("LST-02")
def test_a_guest_maps_and_unmaps_memory(
    program_inside: Program,
    igb: PciFunction,
    mode_inside: str,
    unasked: list[str],
    subtests: pytest.Subtests,
) -> None:
    """A guest maps memory for an assigned device, with pages of its size, and unmaps it."""
    test = program_inside(MAPPINGS)

    check_report(
        test.run(igb.bdf, variants=mapping_variants(mode_inside), leave_out=unasked), subtests
    )


@pytest.mark.negative_control("LST-02")
@pytest.mark.usefixtures("type1_inside")
def test_memory_that_a_guest_does_not_map_is_noticed(
    guest: Guest, program_inside: Program, igb: PciFunction, unasked: list[str]
) -> None:
    """Where the kernel of the guest allows no mapping, its tests of mappings fail."""
    test = program_inside(MAPPINGS)

    with no_mappings(guest):
        report = test.run(igb.bdf, variants=mapping_variants(TYPE1), leave_out=unasked)

    with must_fail():
        check_report(report)


@pytest.mark.rule("LST-05")
def test_a_guest_maps_registers_by_type1_alone(
    program_inside: Program, igb: PciFunction, mode_inside: str, subtests: pytest.Subtests
) -> None:
    """A guest has BARs in its IOMMU by type 1, though they are the host's; never by iommufd."""
    check_report(program_inside(REGISTERS).run(igb.bdf, variants=[mode_inside]), subtests)


@pytest.mark.negative_control("LST-05")
@pytest.mark.usefixtures("type1_inside")
def test_registers_that_a_guest_does_not_map_are_noticed(
    guest: Guest, program_inside: Program, igb: PciFunction
) -> None:
    """Where the kernel of the guest allows no mapping, BARs are not mapped either."""
    test = program_inside(REGISTERS)

    with no_mappings(guest):
        report = test.run(igb.bdf, variants=[TYPE1])

    with must_fail():
        check_report(report)


@pytest.mark.rule("LST-01")
@pytest.mark.usefixtures("iommufd_inside")
@pytest.mark.parametrize("name", ["igb", "nvme"])
def test_a_guest_configures_devices_and_is_interrupted(
    program_inside: Program, free_inside: Free, name: str, subtests: pytest.Subtests
) -> None:
    """In a guest configuration space is written, BARs are mapped, vectors arrive, a reset is."""
    check_report(program_inside(DEVICE).run(free_inside(name).bdf), subtests)


@pytest.mark.negative_control("LST-01")
@pytest.mark.usefixtures("iommufd_inside")
def test_a_device_that_the_vfio_of_a_guest_lacks_is_noticed(
    guest: Guest, program_inside: Program, igb: PciFunction
) -> None:
    """A function that nobody drives in the guest fails them."""
    test = program_inside(DEVICE)

    with guest.without_driver(igb.bdf):
        report = test.run(igb.bdf)

    with must_fail():
        check_report(report)


@pytest.mark.rule("LST-03")
@pytest.mark.usefixtures("iommufd_inside")
def test_a_guest_binds_a_device_to_its_iommufd_once(
    program_inside: Program, igb: PciFunction, subtests: pytest.Subtests
) -> None:
    """In a guest a device is bound once, to its iommufd, and attached to what exists."""
    check_report(program_inside(SETUP).run(igb.bdf), subtests)


@pytest.mark.negative_control("LST-03")
@pytest.mark.usefixtures("iommufd_inside")
def test_an_iommufd_of_a_guest_that_is_none_is_noticed(
    guest: Guest, program_inside: Program, igb: PciFunction
) -> None:
    """Where the guest's /dev/iommu is another device, nothing can be bound."""
    test = program_inside(SETUP)

    with no_iommufd(guest):
        report = test.run(igb.bdf)

    with must_fail():
        check_report(report)
