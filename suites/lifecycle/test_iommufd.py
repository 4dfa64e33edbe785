"""The iommufd backend: what it needs, and what it says where that is missing."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from harness.host.host import Host
from harness.machine.command import Device
from harness.model.pci import PciFunction
from harness.suite_fixtures import Attach, Attempt, Free
from harness.testing import check_said, must_fail, skip
from suites.lifecycle.conftest import check_any, spec_with

NO_IOMMUFD = (
    "/dev/iommu does not exist",
    "Could not open '/dev/iommu': No such file or directory",
)
"""Said when the backend is made, or when the device is."""


@pytest.fixture
def no_iommufd(host: Host) -> None:
    """The kernel of the host has no iommufd, its QEMU has."""
    if host.exists("/dev/iommu"):
        skip("the host has /dev/iommu", enabled_by="a kernel without CONFIG_IOMMUFD")
    if not host.qemu.version.has(11, 0):
        skip(
            "this QEMU looks for the node of the device first, which such a kernel lacks too"
            " (IFD-03)",
            enabled_by="QEMU 11.0 or later",
        )


@pytest.mark.rule("IFD-04")
def test_iommufd_needs_its_node(host: Host, free: Free, attach: Attach, no_iommufd: None) -> None:
    """Where the kernel has no /dev/iommu, the iommufd backend is refused with its name."""
    said = attach(host, free("nvme").bdf, iommufd="backend")

    check_any(said, *NO_IOMMUFD)


@pytest.mark.full
@pytest.mark.negative_control("IFD-04")
def test_the_other_backend_is_noticed(host: Host, free: Free, attach: Attach) -> None:
    """The group backend, which does not need it, is not refused."""
    said = attach(host, free("nvme").bdf)

    with must_fail():
        check_any(said, *NO_IOMMUFD)


@pytest.fixture
def with_backend(host: Host) -> None:
    """The QEMU under test has the backend."""
    if not host.qemu.version.has(9, 0):
        skip("this QEMU has no iommufd backend", enabled_by="QEMU 9.0 or later")


@pytest.fixture
def unbound(host: Host, free: Free) -> Iterator[PciFunction]:
    """A function that no driver has."""
    function = free("nvme")
    with host.without_driver(function.bdf):
        yield function


def no_directory(function: PciFunction) -> tuple[str, ...]:
    """Return what is said of a function that vfio does not have."""
    directory = f"/sys/bus/pci/devices/{function.bdf}/vfio-dev"
    return (f"vfio {function.bdf}: vfio ", f"couldn't open directory {directory}")


@pytest.mark.rule("IFD-02")
@pytest.mark.usefixtures("with_backend", "first_the_node")
def test_a_function_without_vfio_has_no_directory(
    host: Host, unbound: PciFunction, attach: Attach
) -> None:
    """A function that vfio-pci does not have lacks the directory vfio-dev, and QEMU says so."""
    check_said(attach(host, unbound.bdf, iommufd="backend"), *no_directory(unbound))


@pytest.mark.full
@pytest.mark.negative_control("IFD-02")
@pytest.mark.usefixtures("with_backend")
def test_a_function_with_vfio_has_one(host: Host, free: Free, attach: Attach) -> None:
    """One that it has does not."""
    function = free("nvme")

    said = attach(host, function.bdf, iommufd="backend")

    with must_fail():
        check_said(said, *no_directory(function))


@pytest.fixture
def first_the_node(host: Host) -> None:
    """This QEMU looks for the node of the device before it looks for /dev/iommu."""
    if host.qemu.version.has(11, 0) and not host.exists("/dev/iommu"):
        skip(
            "this QEMU looks for /dev/iommu first, which this kernel lacks (IFD-04)",
            enabled_by="a kernel with CONFIG_IOMMUFD",
        )


@pytest.fixture
def no_cdev(host: Host, free: Free, with_backend: None, first_the_node: None) -> None:
    """The kernel of the host gives devices no nodes of their own."""
    free("nvme")  # the directory of nodes is there when a device is in it
    if host.exists("/dev/vfio/devices"):
        skip("vfio devices have nodes here", enabled_by="a kernel without CONFIG_VFIO_DEVICE_CDEV")


NO_NODE = ("failed to find vfio-dev/vfioX/dev", 'failed to load "')
"""Without the directory of the node, and with it but without its number."""


@pytest.mark.rule("IFD-03")
@pytest.mark.usefixtures("no_cdev")
def test_node_of_the_device_is_required(host: Host, free: Free, attach: Attach) -> None:
    """A kernel without nodes for devices is refused by the name of what it lacks."""
    check_any(attach(host, free("nvme").bdf, iommufd="backend"), *NO_NODE)


@pytest.mark.negative_control("IFD-03")
@pytest.mark.usefixtures("with_backend", "first_the_node")
def test_another_lack_is_noticed(host: Host, unbound: PciFunction, attach: Attach) -> None:
    """What is said of a function without vfio is not that."""
    said = attach(host, unbound.bdf, iommufd="backend")

    with must_fail():
        check_any(said, *NO_NODE)


ONLY_WITH_IOMMUFD = ("Use FD passing only with iommufd backend",)


@pytest.mark.rule("IFD-07")
@pytest.mark.usefixtures("with_backend")
def test_descriptors_are_for_iommufd(host: Host, attempt: Attempt) -> None:
    """An open device is not taken by its descriptor without that backend."""
    device = Device("vfio-pci", "passed", "rp0", "0", {"fd": "9"})

    check_said(attempt(host, spec_with(host, device)), *ONLY_WITH_IOMMUFD)


@pytest.mark.negative_control("IFD-07")
@pytest.mark.usefixtures("with_backend")
def test_a_descriptor_that_is_none_is_noticed(host: Host, attempt: Attempt) -> None:
    """What is no descriptor at all is refused with other words."""
    device = Device("vfio-pci", "passed", "rp0", "0", {"fd": "nobody"})
    said = attempt(host, replace(spec_with(host, device), name="nobody"))

    with must_fail():
        check_said(said, *ONLY_WITH_IOMMUFD)
