"""Functions that share an IOMMU group: what one needs of the other."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from harness.host.host import Host
from harness.host.virtual_spec import nested_spec
from harness.host.zoo import PEER_ID
from harness.lab.nested import Nested
from harness.machine.command import Device, MachineSpec
from harness.model.pci import PciFunction
from harness.suite_fixtures import Attempt
from harness.testing import check_said, must_fail


@dataclass(frozen=True, slots=True)
class Peers:
    """Two functions of one group."""

    host: Host
    functions: tuple[PciFunction, ...]

    @property
    def group(self) -> int | None:
        """Their group."""
        return self.functions[0].iommu_group

    def machine(self, *numbers: int, iommu: Device | None = None, bus: str = "") -> MachineSpec:
        """Return a machine that never runs with some of them assigned.

        :param bus: id of a bridge that they lie behind; without, each has a root port.
        """
        bridge = (Device("pcie-pci-bridge", bus, "pcie.0", "0x10"),) if bus else ()
        devices = tuple(
            Device(
                "vfio-pci", f"peer{n}", bus or f"rp{n}", str(n + 1) if bus else "0",
                {"host": str(self.functions[n].bdf)},
            )
            for n in numbers
        )  # fmt: skip
        accel = self.host.accelerator.option
        spec = nested_spec(accel=accel, iommu=iommu, assigned=(*bridge, *devices), name="peers")
        return replace(spec, paused=True)


@pytest.fixture
def peers(zoo: Nested) -> Peers:
    """Two conventional functions behind one bridge of the host; no driver has them."""
    found = sorted(zoo.host.find(PEER_ID), key=lambda function: function.bdf)
    peers = Peers(zoo.host, tuple(found))
    assert len(found) == 2 and found[0].iommu_group == found[1].iommu_group, found
    return peers


@pytest.fixture
def first(peers: Peers) -> Iterator[None]:
    """vfio-pci has the first."""
    with peers.host.bound(peers.functions[0].bdf):
        yield


@pytest.fixture
def second_with_vfio(peers: Peers) -> Iterator[None]:
    """vfio-pci has the second."""
    with peers.host.bound(peers.functions[1].bdf):
        yield


@pytest.fixture
def second_in_use(peers: Peers) -> Iterator[None]:
    """A driver of the host has the second."""
    peers.host.load_driver("uio_pci_generic")
    with peers.host.bound(peers.functions[1].bdf, "uio_pci_generic"):
        yield


@pytest.fixture
def second_stubbed(peers: Peers) -> Iterator[None]:
    """pci-stub has the second, which uses no DMA."""
    peers.host.load_driver("pci-stub")
    with peers.host.bound(peers.functions[1].bdf, "pci-stub"):
        yield


def check_accepted(said: str) -> None:
    """QEMU accepted."""
    assert not said, said


def not_viable(peers: Peers) -> tuple[str, ...]:
    """Return what is said of a group of which the host uses a part."""
    return (
        f"group {peers.group} is not viable",
        "Please ensure all devices within the iommu_group are bound to their vfio bus driver.",
    )


@pytest.mark.rule("LIF-06", "NST-23")
@pytest.mark.negative_control("LIF-07")
@pytest.mark.usefixtures("first", "second_in_use")
def test_a_group_in_use_by_the_host_is_refused(peers: Peers, attempt: Attempt) -> None:
    """A function is not given away while a driver of the host has another of its group."""
    said = attempt(peers.host, peers.machine(0))

    check_said(said, *not_viable(peers))
    with must_fail():
        check_accepted(said)


@pytest.mark.negative_control("LIF-06", "NST-23")
@pytest.mark.usefixtures("first", "second_with_vfio")
def test_a_group_wholly_with_vfio_is_noticed(peers: Peers, attempt: Attempt) -> None:
    """It is, while vfio has both."""
    said = attempt(peers.host, peers.machine(0))

    with must_fail():
        check_said(said, *not_viable(peers))


@pytest.mark.rule("LIF-07")
@pytest.mark.usefixtures("first")
def test_a_sibling_without_driver_does_no_harm(peers: Peers, attempt: Attempt) -> None:
    """It is, while nobody has the other."""
    check_accepted(attempt(peers.host, peers.machine(0)))


@pytest.mark.rule("LIF-07")
@pytest.mark.usefixtures("first", "second_stubbed")
def test_a_stubbed_sibling_does_no_harm(peers: Peers, attempt: Attempt) -> None:
    """It is, while pci-stub has the other."""
    check_accepted(attempt(peers.host, peers.machine(0)))


def not_with_vfio(peers: Peers) -> tuple[str, ...]:
    """Return what is said of a function that vfio does not have, in a group that it has."""
    return (
        f"error getting device from group {peers.group}: ",
        f"Verify all devices in group {peers.group} are bound to vfio-<bus> or pci-stub and not"
        " already in use",
    )


@pytest.mark.rule("LIF-08")
@pytest.mark.usefixtures("first")
def test_a_function_without_vfio_is_refused(peers: Peers, attempt: Attempt) -> None:
    """The other function of a group that vfio has is refused if vfio does not have it too."""
    check_said(attempt(peers.host, peers.machine(1)), *not_with_vfio(peers))


@pytest.mark.negative_control("LIF-08")
@pytest.mark.usefixtures("first")
def test_a_function_with_vfio_is_noticed(peers: Peers, attempt: Attempt) -> None:
    """The one that vfio has is not."""
    said = attempt(peers.host, peers.machine(0))

    with must_fail():
        check_said(said, *not_with_vfio(peers))


VIOMMU = Device("intel-iommu", "iommu", options={"caching-mode": True, "intremap": True})


def two_spaces(peers: Peers) -> tuple[str, ...]:
    """Return what is said of a group that would be in two address spaces."""
    return (f"group {peers.group} used in multiple address spaces",)


@pytest.mark.rule("LIF-10")
@pytest.mark.usefixtures("first", "second_with_vfio")
def test_a_group_has_one_address_space(peers: Peers, attempt: Attempt) -> None:
    """Behind a vIOMMU, where each has a space of its own, two of one group are refused."""
    check_said(attempt(peers.host, peers.machine(0, 1, iommu=VIOMMU)), *two_spaces(peers))


@pytest.mark.rule("LIF-11")
@pytest.mark.negative_control("LIF-10")
@pytest.mark.usefixtures("first", "second_with_vfio")
def test_a_bridge_joins_address_spaces(peers: Peers, attempt: Attempt) -> None:
    """Behind one conventional bridge, where they share a space, they are accepted."""
    said = attempt(peers.host, peers.machine(0, 1, iommu=VIOMMU, bus="joint"))

    check_accepted(said)
    with must_fail():
        check_said(said, *two_spaces(peers))


@pytest.mark.negative_control("LIF-11")
@pytest.mark.usefixtures("first", "second_with_vfio")
def test_two_address_spaces_are_noticed(peers: Peers, attempt: Attempt) -> None:
    """Behind two root ports they are not."""
    said = attempt(peers.host, peers.machine(0, 1, iommu=VIOMMU))

    with must_fail():
        check_accepted(said)
