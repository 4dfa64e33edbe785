"""Groups of two functions by the iommufd backend: who may have what, and in which space."""

from dataclasses import replace

import pytest

from harness.machine.command import MachineSpec
from harness.suite_fixtures import Attempt
from harness.testing import check_said, must_fail
from suites.lifecycle.test_groups import (
    VIOMMU,
    Peers,
    first,
    peers,
    second_in_use,
    second_with_vfio,
)
from suites.lifecycle.test_iommufd_backend import BACKEND, with_iommufd

__all__ = ["first", "peers", "second_in_use", "second_with_vfio", "with_iommufd"]

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("with_iommufd")]


def by_iommufd(spec: MachineSpec) -> MachineSpec:
    """Return the machine with that backend for all that is assigned to it."""
    devices = tuple(
        device.having(iommufd=BACKEND) if device.driver == "vfio-pci" else device
        for device in spec.devices
    )
    return replace(spec, devices=devices, objects=(f"iommufd,id={BACKEND}",))


def not_attached(peers: Peers) -> tuple[str, ...]:
    """Return what is said of a function that cannot be attached to the address space."""
    return (f"error attach {peers.functions[1].bdf} (", " to id=", ": Invalid argument")


@pytest.mark.rule("IFD-06")
@pytest.mark.usefixtures("first", "second_with_vfio")
def test_a_group_is_attached_to_one_space(peers: Peers, attempt: Attempt) -> None:
    """Behind a vIOMMU, where each has a space of its own, the second of a group is refused."""
    said = attempt(peers.host, by_iommufd(peers.machine(0, 1, iommu=VIOMMU)))

    check_said(said, *not_attached(peers))


@pytest.mark.negative_control("IFD-06")
@pytest.mark.usefixtures("first", "second_with_vfio")
def test_a_group_in_one_space_is_noticed(peers: Peers, attempt: Attempt) -> None:
    """Behind one conventional bridge, where they share a space, both are attached."""
    said = attempt(peers.host, by_iommufd(peers.machine(0, 1, iommu=VIOMMU, bus="joint")))

    with must_fail():
        check_said(said, *not_attached(peers))


def check_refused_by_bind(said: str) -> None:
    """The kernel did not let QEMU have the function, and nobody asked whether it might."""
    check_said(said, "error bind device fd=", ": Operation not permitted")
    assert "viable" not in said, said


@pytest.mark.rule("IFD-09")
@pytest.mark.usefixtures("first", "second_in_use")
def test_a_group_in_use_by_the_host_is_not_bound(peers: Peers, attempt: Attempt) -> None:
    """A function is not bound while a driver of the host has another of its group."""
    check_refused_by_bind(attempt(peers.host, by_iommufd(peers.machine(0))))


@pytest.mark.negative_control("IFD-09")
@pytest.mark.usefixtures("first", "second_in_use")
def test_a_group_that_is_asked_first_is_noticed(peers: Peers, attempt: Attempt) -> None:
    """By its group, QEMU asks whether that is viable."""
    said = attempt(peers.host, peers.machine(0))

    with must_fail():
        check_refused_by_bind(said)


@pytest.mark.negative_control("IFD-09")
@pytest.mark.usefixtures("first", "second_with_vfio")
def test_a_group_that_is_free_is_noticed(peers: Peers, attempt: Attempt) -> None:
    """While vfio has both it is bound."""
    said = attempt(peers.host, by_iommufd(peers.machine(0)))

    with must_fail():
        check_refused_by_bind(said)
