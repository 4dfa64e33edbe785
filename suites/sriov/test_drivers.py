"""Which drivers make virtual functions, and who takes them; what QEMU traces of it."""

from collections.abc import Iterator

import pytest

from harness.guest.sriov import Sriov
from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.lab.resident import Resident
from harness.model.pci import PciFunction
from harness.testing import must_fail
from suites.sriov.conftest import COUNT, Family, check_refused

NO_ENTRY = "No such file or directory"


NO_DRIVER = "no driver bound to device; cannot configure SR-IOV"


@pytest.mark.rule("SRV-04")
def test_no_driver_makes_none(host: Host, resident: Resident) -> None:
    """Without a driver there are no virtual functions to be had."""
    bdf = resident.free("igb").bdf
    with host.without_driver(bdf):
        check_refused(Sriov(host, bdf), COUNT, NO_ENTRY, NO_DRIVER)


@pytest.mark.negative_control("SRV-04")
def test_another_cause_is_noticed(host: Host, resident: Resident) -> None:
    """vfio-pci, which refuses with the same errno, does not say that there is no driver."""
    function = Sriov(host, resident.free("igb").bdf)

    with must_fail():
        check_refused(function, COUNT, NO_ENTRY, NO_DRIVER)


NO_CALLBACK = "driver does not support SR-IOV configuration via sysfs"


@pytest.fixture
def stubbed(host: Host, resident: Resident) -> Iterator[Sriov]:
    """The igb in the hands of a driver that knows nothing of SR-IOV."""
    function = resident.free("igb")
    host.load_driver("uio_pci_generic")
    with host.bound(function.bdf, "uio_pci_generic"):
        yield Sriov(host, function.bdf)


@pytest.mark.rule("SRV-05")
def test_a_driver_that_cannot_makes_none(stubbed: Sriov) -> None:
    """A driver without the callback makes no virtual functions, and the kernel says so."""
    check_refused(stubbed, COUNT, NO_ENTRY, NO_CALLBACK)


@pytest.mark.negative_control("SRV-05")
def test_a_driver_that_will_not_is_noticed(host: Host, resident: Resident) -> None:
    """vfio-pci has the callback and refuses silently."""
    function = Sriov(host, resident.free("igb").bdf)

    with must_fail():
        check_refused(function, COUNT, NO_ENTRY, NO_CALLBACK)


@pytest.fixture
def own_driver(host: Host, resident: Resident) -> Iterator[Sriov]:
    """The igb with the driver that makes virtual functions, and theirs waiting."""
    bdf = resident.free("igb").bdf
    host.load_driver("igb")
    host.load_driver("igbvf")
    found = Sriov(host, bdf)
    # On a host that stays, the session's functions may have it off.
    with host.bound(bdf, "igb"), found.setting("drivers_autoprobe", 1):
        yield found


def check_without_driver(virtual: tuple[PciFunction, ...]) -> None:
    """No driver has taken them."""
    assert [f.driver for f in virtual] == [None] * COUNT, virtual


@pytest.mark.rule("SRV-07")
def test_nobody_takes_them_without_autoprobe(igb: Sriov, family: Family) -> None:
    """With sriov_drivers_autoprobe off no driver takes the virtual functions."""
    assert igb.read("drivers_autoprobe") == "0"
    assert igb.system.exists("/sys/bus/pci/drivers/igbvf"), "their driver must be there to try"

    check_without_driver(family.virtual)


@pytest.mark.full
@pytest.mark.negative_control("SRV-07")
def test_autoprobe_is_noticed(own_driver: Sriov) -> None:
    """With it on, their driver does."""
    with own_driver.enabled(COUNT) as virtual, must_fail():
        check_without_driver(virtual)


def check_traced(events: list[str], name: str) -> None:
    """The lab's QEMU did it."""
    assert name in events, events


@pytest.mark.full
@pytest.mark.rule("SRV-25")
def test_coming_and_going_is_traced(virtual_host: VirtualHost, own_driver: Sriov) -> None:
    """QEMU traces that virtual functions are made, and that they go."""
    with virtual_host.machine.tracing("sriov_*") as window, own_driver.enabled(COUNT):
        pass

    events = [event.name for event in window.events]
    check_traced(events, "sriov_register_vfs")
    check_traced(events, "sriov_unregister_vfs")


@pytest.mark.full
@pytest.mark.negative_control("SRV-25")
def test_silence_is_noticed(virtual_host: VirtualHost, own_driver: Sriov) -> None:
    """Where none are made none are traced."""
    with virtual_host.machine.tracing("sriov_*") as window:
        own_driver.read("numvfs")

    with must_fail():
        check_traced([event.name for event in window.events], "sriov_register_vfs")
