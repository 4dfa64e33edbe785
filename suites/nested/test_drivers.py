"""What the nested guest sees of an assigned function, beside what the host sees."""

import pytest

from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import TEST_DEVICES
from harness.lab.assigned import Assigned
from harness.lab.nested import Nested
from harness.machine.machine import Machine
from harness.model.pci import PciFunction
from harness.testing import must_fail, only

SRIOV, ARI = 0x10, 0x0E
"""Extended capability ids (PCIe 6.0, 9.3.3 and 7.8.8)."""


def check_driver(seen: PciFunction, driver: str) -> None:
    """The driver made for the device has it."""
    assert seen.driver == driver, seen.driver


@only("nvme", "e1000e", "igb")
@pytest.mark.rule("NST-03")
def test_driver_of_the_guest_takes_the_function(assigned: Assigned) -> None:
    """The driver of the nested guest binds to an emulated device of the lab."""
    check_driver(assigned.seen_by_guest(), TEST_DEVICES[assigned.name].guest_driver)


@pytest.mark.negative_control("NST-03")
def test_a_function_without_a_driver_is_noticed(nested: Nested) -> None:
    """The host's side of the function, where vfio-pci has it, fails the check."""
    function = nested.assigned["nvme"].host.function(nested.assigned["nvme"].function.bdf)

    with must_fail():
        check_driver(function, TEST_DEVICES["nvme"].guest_driver)


def check_no_vfio(machine: Machine) -> None:
    """The machine has no device of the computer it runs on."""
    assert "dev: vfio" not in machine.qmp.hmp("info qtree")


@pytest.mark.rule("NST-03")
def test_lab_assigns_nothing(virtual_host: VirtualHost) -> None:
    """The lab's QEMU needs no vfio: its emulated devices are the devices of the host."""
    check_no_vfio(virtual_host.machine)


@pytest.mark.negative_control("NST-03")
def test_an_assigned_device_is_noticed(nested: Nested) -> None:
    """The machine of the nested guest, which has assigned devices, fails the check."""
    with must_fail():
        check_no_vfio(nested.machine)


def check_vectors(seen: PciFunction, there: PciFunction) -> None:
    """Both have a table of the same number of vectors."""
    assert seen.msix is not None and there.msix is not None
    assert seen.msix.vectors == there.msix.vectors, (seen.msix, there.msix)


@only("nvme", "e1000e", "igb")
@pytest.mark.rule("INT-15")
def test_guest_sees_every_vector(assigned: Assigned) -> None:
    """The guest sees as many MSI-X vectors as the host's function has."""
    check_vectors(assigned.seen_by_guest(), assigned.function)


@pytest.mark.negative_control("INT-15")
def test_another_number_of_vectors_is_noticed(nested: Nested) -> None:
    """The table of an nvme is not that of an e1000e."""
    with must_fail():
        check_vectors(nested.assigned["nvme"].seen_by_guest(), nested.assigned["e1000e"].function)


def check_sriov_is_hidden(seen: PciFunction) -> None:
    """There is extended configuration space, and no SR-IOV or ARI capability in it."""
    shown = {capability.id for capability in seen.capabilities if capability.extended}
    assert shown and not shown & {SRIOV, ARI}, shown


@only("igb")
@pytest.mark.rule("MAP-36")
def test_sriov_is_hidden_from_the_guest(assigned: Assigned) -> None:
    """SR-IOV and ARI capabilities of the host's function are not shown to the guest."""
    check_sriov_is_hidden(assigned.seen_by_guest())


@only("igb")
@pytest.mark.negative_control("MAP-36")
def test_shown_sriov_is_noticed(assigned: Assigned) -> None:
    """The function as the host sees it, which has both, fails the check."""
    with must_fail():
        check_sriov_is_hidden(assigned.function)
