"""What a process can reach through a device: told from its node, proven by a stray DMA."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.guest.canary import canary
from harness.guest.fault_log import FaultLog
from harness.guest.stray import stray_write, stray_write_of
from harness.guest.system import System
from harness.guest.user_nodes import node_of
from harness.guest.vfio_driver import drive
from harness.lab.driver_guest import DriverGuest
from harness.model.pci import Bdf, PciFunction
from harness.model.user_space import Exposure, exposure_of
from harness.parse.dmesg import FaultKind
from harness.parse.iommu_fault import IommuFault
from harness.testing import must_fail

pytestmark = pytest.mark.full

UIO, VFIO = "uio_pci_generic", "vfio-pci"
PAGE_MASK = ~0xFFF


def faults_of(log: FaultLog, reached: Exposure) -> Sequence[IommuFault]:
    """Return what was logged: of a write that was refused it is told soon."""
    return log.soon() if reached is Exposure.MAPPED else log.faults()


def stray_of_vfio(system: System, bdf: Bdf) -> tuple[Exposure, Sequence[IommuFault], int]:
    """Let a process with vfio write astray; return what it reached, the faults, the address."""
    log = FaultLog.listen(system)
    with canary(system) as bystander, drive(system, bdf) as driver:
        stray_write_of(driver, bystander.address)
        reached = Exposure.MAPPED if bystander.intact else Exposure.ALL
        address = bystander.address
    return reached, faults_of(log, reached), address


def stray_of_mapping(system: System, bdf: Bdf) -> tuple[Exposure, Sequence[IommuFault], int]:
    """Let a process that has mapped the registers, as with UIO, write astray."""
    log = FaultLog.listen(system)
    with canary(system) as bystander:
        stray_write(system, bdf, bystander.address)
        reached = Exposure.MAPPED if bystander.intact else Exposure.ALL
        address = bystander.address
    return reached, faults_of(log, reached), address


def check_node_tells(node: str, reached: Exposure) -> None:
    """Through *node* a process reaches what its name says, neither more nor less."""
    assert reached is exposure_of(node), f"{node} reaches {reached.value}"


def check_logged(faults: Sequence[IommuFault], bdf: Bdf, address: int) -> None:
    """The first fault is a write of *bdf* to *address*."""
    seen = [(fault.kind, fault.source, fault.address) for fault in faults][:1]
    assert seen == [(FaultKind.DMA_WRITE, bdf, address & PAGE_MASK)], faults


@pytest.mark.rule("UIO-01", "UIO-07")
def test_vfio_with_an_iommu_is_safe(shielded_guest: DriverGuest, edu: PciFunction) -> None:
    """Below a vIOMMU a process with vfio reaches nothing it has not mapped; the try is logged."""
    host = shielded_guest.host
    with host.bound(edu.bdf, VFIO):
        node = node_of(host, edu.bdf)
        reached, faults, address = stray_of_vfio(host, edu.bdf)

    check_node_tells(node, reached)
    assert reached is Exposure.MAPPED
    check_logged(faults, edu.bdf, address)


@pytest.mark.rule("UIO-01")
def test_uio_is_unsafe(bare_guest: DriverGuest, bare_edu: PciFunction) -> None:
    """Without an IOMMU a process with UIO writes to any memory of the guest."""
    host = bare_guest.host
    with host.bound(bare_edu.bdf, UIO):
        node = node_of(host, bare_edu.bdf)
        reached, _, _ = stray_of_mapping(host, bare_edu.bdf)

    check_node_tells(node, reached)
    assert reached is Exposure.ALL


@pytest.mark.rule("UIO-01")
def test_noiommu_is_unsafe(unsafe_guest: DriverGuest, bare_edu: PciFunction) -> None:
    """A process with vfio's no-iommu mode writes to any memory of the guest."""
    host = unsafe_guest.host
    with host.bound(bare_edu.bdf, VFIO):
        node = node_of(host, bare_edu.bdf)
        reached, _, _ = stray_of_mapping(host, bare_edu.bdf)

    check_node_tells(node, reached)
    assert reached is Exposure.ALL


@pytest.mark.negative_control("UIO-01")
def test_a_wrong_name_is_noticed(bare_guest: DriverGuest, bare_edu: PciFunction) -> None:
    """What UIO reaches without an IOMMU is not what a node of a vfio group promises."""
    host = bare_guest.host
    with host.bound(bare_edu.bdf, UIO):
        reached, _, _ = stray_of_mapping(host, bare_edu.bdf)

    with must_fail():
        check_node_tells("/dev/vfio/1", reached)


@pytest.mark.rule("UIO-07")
def test_uio_with_physical_addresses_faults(shielded_guest: DriverGuest, edu: PciFunction) -> None:
    """With intel_iommu=on a device driven by UIO that is told physical addresses faults."""
    host = shielded_guest.host
    with host.bound(edu.bdf, UIO):
        _, faults, address = stray_of_mapping(host, edu.bdf)

    check_logged(faults, edu.bdf, address)


@pytest.mark.negative_control("UIO-07")
def test_no_fault_without_an_iommu(bare_guest: DriverGuest, bare_edu: PciFunction) -> None:
    """The same DMA in a guest without an IOMMU faults nowhere."""
    host = bare_guest.host
    with host.bound(bare_edu.bdf, UIO):
        _, faults, address = stray_of_mapping(host, bare_edu.bdf)

    with must_fail():
        check_logged(faults, bare_edu.bdf, address)
