"""Assigning a function in a host whose IOMMU does not remap interrupts."""

from collections.abc import Callable

import pytest

from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.lab.nested import prepare
from harness.model.pci import PciFunction
from harness.parse.dmesg import VfioNote, vfio_messages
from harness.suite_fixtures import Attach, Free
from harness.testing import check_said, must_fail, skip


def check_refused_for_interrupts(host: Host, said: str) -> None:
    """QEMU could not use the group, and the kernel says that remapping is missing."""
    notes = [m.note for m in vfio_messages(host.kernel_log().splitlines())]
    assert "Operation not permitted" in said, said or "QEMU accepted it"
    assert VfioNote.NO_INTERRUPT_REMAPPING in notes, notes


@pytest.mark.rule("NST-02", "INT-12")
def test_vfio_needs_interrupt_remapping(
    host_without_remapping: VirtualHost, attach: Callable[..., str]
) -> None:
    """Without interrupt remapping the kernel refuses the group, and says why in its log."""
    function = prepare(host_without_remapping, ["nvme"])["nvme"]

    said = attach(host_without_remapping, function.bdf)

    check_refused_for_interrupts(host_without_remapping, said)


@pytest.mark.negative_control("NST-02", "INT-12")
def test_a_host_that_remaps_is_noticed(
    host: Host, free: Callable[..., object], attach: Callable[..., str]
) -> None:
    """A host that remaps interrupts assigns the same function, and logs nothing."""
    free("nvme")
    said = attach(host, prepare(host, ["nvme"])["nvme"].bdf)

    with must_fail():
        check_refused_for_interrupts(host, said)


# -- by iommufd ------------------------------------------------------------------------------

ALLOW = ("iommufd", "allow_unsafe_interrupts", "1")
NOT_SECURE = "MSI interrupts are not secure, they cannot be isolated by the platform"


@pytest.fixture
def exposed(host_without_remapping: VirtualHost) -> PciFunction:
    """A function on the host without interrupt remapping, with a node of its own."""
    function = prepare(host_without_remapping, ["nvme"])["nvme"]
    nodes = ("/dev/iommu", "/dev/vfio/devices")
    missing = [node for node in nodes if not host_without_remapping.exists(node)]
    if missing:
        skip(
            f"the kernel of the host has no {missing[0]}",
            enabled_by="trapline run --kernel built:7.3 nested (compiles it, once)",
        )
    return function


@pytest.fixture
def shielded(exposed: PciFunction, free: Free) -> PciFunction:
    """The same function on the host that remaps interrupts."""
    return free("nvme")


def check_not_bound(said: str) -> None:
    """The kernel did not bind the function to iommufd."""
    check_said(said, "error bind device fd=", ": Operation not permitted")


def check_warned(host: Host, function: PciFunction, attach: Attach) -> None:
    """It is assigned once that is allowed, and the kernel warns of it."""
    mark = host.kernel_log_mark()
    with host.parameter(*ALLOW):
        said = attach(host, function.bdf, iommufd="backend")

    assert not said, said
    check_said(host.kernel_log_since(mark), NOT_SECURE)


@pytest.mark.full
@pytest.mark.rule("INT-13")
def test_iommufd_needs_interrupt_remapping(
    host_without_remapping: VirtualHost, exposed: PciFunction, attach: Attach
) -> None:
    """Without interrupt remapping a function is not bound to iommufd."""
    check_not_bound(attach(host_without_remapping, exposed.bdf, iommufd="backend"))


@pytest.mark.full
@pytest.mark.negative_control("INT-13")
def test_iommufd_of_a_host_that_remaps_is_noticed(
    host: Host, shielded: PciFunction, attach: Attach
) -> None:
    """Where the host remaps interrupts it is."""
    said = attach(host, shielded.bdf, iommufd="backend")

    with must_fail():
        check_not_bound(said)


@pytest.mark.full
@pytest.mark.rule("INT-13")
def test_unsafe_interrupts_are_warned_of(
    host_without_remapping: VirtualHost, exposed: PciFunction, attach: Attach
) -> None:
    """With allow_unsafe_interrupts of iommufd it is bound, and the kernel warns."""
    check_warned(host_without_remapping, exposed, attach)


@pytest.mark.full
@pytest.mark.negative_control("INT-13")
def test_safe_interrupts_are_noticed(host: Host, shielded: PciFunction, attach: Attach) -> None:
    """Where the host remaps interrupts there is nothing to warn of."""
    with must_fail():
        check_warned(host, shielded, attach)
