"""What a device assigned to the nested guest may reach by DMA."""

from collections.abc import Callable

import pytest

from harness.guest.canary import canary
from harness.guest.edu import Edu
from harness.guest.fault_log import FaultLog
from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import TEST_DEVICES
from harness.lab.nested import Nested
from harness.model.pci import Bdf, PciFunction
from harness.testing import check_said, must_fail

VALUE = 0x6261_6421


def check_stopped(edu: Edu, host: Host, *, source: Bdf, above: int) -> None:
    """A DMA to memory of the host changes nothing; the fault names requester and address."""
    log = FaultLog.listen(host)
    with canary(host, above=above) as bystander:
        edu.poke(bystander.address, VALUE)

        assert bystander.intact, bystander.look()
    faults = log.soon()
    assert [(f.source, f.address) for f in faults][:1] == [(source, bystander.address & ~0xFFF)]


@pytest.mark.rule("NST-20", "VTD-51")
def test_dma_outside_the_guest_faults(nested_host: VirtualHost, nested: Nested, edu: Edu) -> None:
    """A DMA to memory of the host that is no memory of the guest is stopped and logged."""
    source = nested.assigned["edu"].function.bdf

    check_stopped(edu, nested_host, source=source, above=nested.machine.spec.memory_mib << 20)


@pytest.mark.full
@pytest.mark.negative_control("NST-20", "VTD-51")
def test_dma_without_an_iommu_is_noticed(bare_host: VirtualHost) -> None:
    """On a host without an IOMMU the same DMA changes the bystander."""
    function = bare_host.find_one(TEST_DEVICES["edu"].id)
    edu = Edu(bare_host, function.bdf)
    edu.configure()

    with must_fail():
        check_stopped(edu, bare_host, source=function.bdf, above=256 << 20)


def check_roundtrip(edu: Edu) -> None:
    """A page goes to the device by DMA and comes back unchanged."""
    assert edu.roundtrip()


@pytest.mark.rule("EDU-06", "EDU-07")
def test_dma_inside_the_guest_works(edu: Edu) -> None:
    """The device reads a page of the guest by DMA and writes it to another one."""
    check_roundtrip(edu)


@pytest.mark.negative_control("EDU-06", "EDU-07")
def test_dma_without_bus_mastering_is_noticed(edu: Edu) -> None:
    """A device that may not be bus master moves nothing."""
    edu.configure(dma=False)

    with must_fail():
        check_roundtrip(edu)


NO_GROUP = "no iommu_group found: No such file or directory"


@pytest.mark.full
@pytest.mark.rule("NST-01", "LIF-03")
def test_a_host_without_an_iommu_assigns_nothing(
    bare_host: VirtualHost, attach: Callable[..., str]
) -> None:
    """Without an IOMMU in the host a function has no group, and QEMU refuses it."""
    bdf = bare_host.find_one(TEST_DEVICES["nvme"].id).bdf

    check_said(attach(bare_host, bdf), f"vfio {bdf}: {NO_GROUP}")


@pytest.mark.full
@pytest.mark.negative_control("NST-01", "LIF-03")
def test_a_host_with_an_iommu_is_noticed(
    host: Host, free: Callable[[str], PciFunction], attach: Callable[..., str]
) -> None:
    """A host with an IOMMU assigns the same function."""
    bdf = free("nvme").bdf
    said = attach(host, bdf)

    with must_fail():
        check_said(said, f"vfio {bdf}: {NO_GROUP}")
