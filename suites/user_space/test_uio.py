"""What UIO and vfio without an IOMMU are, and what they are not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from harness.guest.sriov import Sriov
from harness.guest.system import System
from harness.guest.testpmd import Memory
from harness.guest.user_nodes import node_of, opened_by_nobody, taint
from harness.guest.vfio_driver import drive
from harness.host.virtual import VirtualHost
from harness.lab.driver_guest import DriverGuest, Nic
from harness.model.pci import Bdf, PciFunction
from harness.suite_fixtures import Attach
from harness.testing import must_fail

pytestmark = pytest.mark.full

UIO, VFIO = "uio_pci_generic", "vfio-pci"
PCI = "/sys/bus/pci/devices"
TAINT_USER = 1 << 6


# -- UIO ----------------------------------------------------------------------------------------


@pytest.fixture
def virtual_function(shielded_guest: DriverGuest) -> Iterator[PciFunction]:
    """A virtual function of the guest's igb: a function that has no interrupt pin."""
    bdf = shielded_guest.nic("igb").bdf
    shielded_guest.host.load_driver("igb")
    with (
        shielded_guest.host.bound(bdf, "igb"),
        Sriov(shielded_guest.host, bdf).enabled(1) as (function,),
    ):
        yield function


def check_no_interrupt(system: System, bdf: Bdf) -> None:
    """The driver takes the function, and says that it has no interrupt to offer."""
    mark = system.kernel_log_mark()
    system.run(f"modprobe {UIO}; echo {UIO} > {PCI}/{bdf}/driver_override")
    system.run(f"[ -e {PCI}/{bdf}/driver ] && echo {bdf} > {PCI}/{bdf}/driver/unbind; :")
    system.write_text("/sys/bus/pci/drivers_probe", str(bdf))
    try:
        driver, said = system.function(bdf).driver, system.kernel_log_since(mark)
    finally:
        system.run(f"echo {bdf} > {PCI}/{bdf}/driver/unbind; echo > {PCI}/{bdf}/driver_override")
    assert driver == UIO, f"driver {driver}: {said}"
    assert f"{UIO} {bdf}: No IRQ assigned to device: no support for interrupts?" in said, (
        said or "nothing was logged"
    )


@pytest.mark.rule("UIO-05")
def test_a_function_without_a_pin_has_no_interrupts(
    shielded_guest: DriverGuest, virtual_function: PciFunction
) -> None:
    """UIO takes a virtual function, which has no pin, but has no interrupt to offer for it."""
    assert virtual_function.interrupt_pin == 0

    check_no_interrupt(shielded_guest.host, virtual_function.bdf)


@pytest.mark.negative_control("UIO-05")
def test_a_function_with_a_pin_is_noticed(shielded_guest: DriverGuest) -> None:
    """A function with a pin has its interrupt, and the check fails."""
    with must_fail():
        check_no_interrupt(shielded_guest.host, shielded_guest.edu().bdf)


def check_pin_only(system: System, bdf: Bdf) -> None:
    """The function interrupts by its pin, if at all, and nobody can map memory for it."""
    function = system.function(bdf)
    messages = system.list_directory(f"{PCI}/{bdf}/msi_irqs")
    nodes = [name for name in system.list_directory("/dev/vfio") if name.isdigit()]
    enabled = [c.enabled for c in (function.msi, function.msix) if c is not None]
    assert (messages, any(enabled)) == ([], False), (messages, enabled)
    assert str(function.iommu_group) not in nodes, nodes
    assert system.exists(f"{PCI}/{bdf}/uio"), f"no UIO device at {bdf}"


@pytest.mark.rule("UIO-06")
def test_uio_has_neither_messages_nor_mappings(shielded_guest: DriverGuest) -> None:
    """With UIO a card that has MSI and MSI-X uses neither, and its group has no node."""
    host, bdf = shielded_guest.host, shielded_guest.nic("e1000e").bdf
    with host.bound(bdf, UIO):
        check_pin_only(host, bdf)


@pytest.mark.negative_control("UIO-06")
def test_vfio_is_noticed(shielded_guest: DriverGuest) -> None:
    """With vfio the same card has both, and the check fails."""
    host, bdf = shielded_guest.host, shielded_guest.nic("e1000e").bdf
    with host.bound(bdf, VFIO), drive(host, bdf) as driver:
        driver.interrupts("msix", 1)
        with must_fail():
            check_pin_only(host, bdf)


# -- vfio without an IOMMU ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of giving a function to vfio-pci."""

    driver: str | None
    node: str
    """Empty: it has none."""
    log: str
    taint: int


def taken_by_vfio(system: System, bdf: Bdf) -> Taken:
    """Give *bdf* to vfio-pci, which may refuse it; it is without a driver afterwards."""
    mark = system.kernel_log_mark()
    path = f"{PCI}/{bdf}"
    system.run(f"modprobe vfio-pci; echo {VFIO} > {path}/driver_override")
    try:
        system.run(f"echo {bdf} > /sys/bus/pci/drivers_probe", check=False)
        driver = system.function(bdf).driver
        node = node_of(system, bdf) if driver == VFIO else ""
        return Taken(driver, node, system.kernel_log_since(mark), taint(system))
    finally:
        system.run(
            f"[ -e {path}/driver ] && echo {bdf} > {path}/driver/unbind;"
            f" echo > {path}/driver_override"
        )


def check_taints(taken: Taken) -> None:
    """vfio-pci has the function, with an unsafe node; the kernel says so and is tainted."""
    assert taken.driver == VFIO, f"driver {taken.driver}: {taken.log}"
    assert taken.node.startswith("/dev/vfio/noiommu-"), taken.node
    assert "Adding kernel taint for vfio-noiommu group on device" in taken.log, taken.log
    assert taken.taint & TAINT_USER, hex(taken.taint)


@pytest.mark.rule("UIO-02")
def test_no_iommu_is_allowed_and_taints(unsafe_guest: DriverGuest, bare_edu: PciFunction) -> None:
    """Told that it may, vfio-pci takes a function that no IOMMU has, and taints the kernel."""
    check_taints(taken_by_vfio(unsafe_guest.host, bare_edu.bdf))


@pytest.mark.negative_control("UIO-02")
def test_no_iommu_that_is_not_allowed_is_noticed(
    bare_guest: DriverGuest, bare_edu: PciFunction
) -> None:
    """Not told so, it does not take it, and the check fails."""
    with must_fail():
        check_taints(taken_by_vfio(bare_guest.host, bare_edu.bdf))


def check_open_is_logged(log: str, bdf: Bdf) -> None:
    """The kernel wrote down that *bdf* was opened without an IOMMU."""
    assert f"{VFIO} {bdf}: vfio-noiommu device opened by user" in log, log or "nothing was logged"


def opened_by_dpdk(guest: DriverGuest, nic: Nic, memory: Memory) -> str:
    """Let testpmd open the card by vfio; return what the kernel logged."""
    mark = guest.host.kernel_log_mark()
    with guest.host.bound(nic.bdf, VFIO), guest.forwarding(nic, memory):
        pass
    return guest.host.kernel_log_since(mark)


@pytest.mark.rule("UIO-03")
def test_opening_without_iommu_is_logged(unsafe_guest: DriverGuest) -> None:
    """Who opens a device that no IOMMU has is written to the kernel's log."""
    nic = unsafe_guest.nic("e1000e")

    check_open_is_logged(opened_by_dpdk(unsafe_guest, nic, Memory.PHYSICAL), nic.bdf)


@pytest.mark.negative_control("UIO-03")
def test_opening_with_an_iommu_is_noticed(shielded_guest: DriverGuest) -> None:
    """Below an IOMMU opening is nothing to write down, and the check fails."""
    nic = shielded_guest.nic("e1000e")
    log = opened_by_dpdk(shielded_guest, nic, Memory.PAGES)

    with must_fail():
        check_open_is_logged(log, nic.bdf)


def check_needs_privilege(host: VirtualHost, bdf: Bdf) -> None:
    """Who lacks CAP_SYS_RAWIO may not open the node of *bdf*, whatever its file mode says."""
    with host.bound(bdf, VFIO):
        said = opened_by_nobody(host, node_of(host, bdf))
    assert "Operation not permitted" in said, said or "it may"


@pytest.mark.rule("UIO-03")
def test_opening_without_iommu_needs_privilege(
    unsafe_guest: DriverGuest, bare_edu: PciFunction
) -> None:
    """The node of a function that no IOMMU has can be opened with CAP_SYS_RAWIO only."""
    check_needs_privilege(unsafe_guest.host, bare_edu.bdf)


@pytest.mark.negative_control("UIO-03")
def test_a_node_for_everybody_is_noticed(shielded_guest: DriverGuest, edu: PciFunction) -> None:
    """The node of a function below an IOMMU can be opened by whom its mode lets in."""
    with must_fail():
        check_needs_privilege(shielded_guest.host, edu.bdf)


def check_qemu_refuses(guest: DriverGuest, bdf: Bdf, attach: Attach) -> None:
    """QEMU looks for the node of a group with an IOMMU, and finds none."""
    with guest.host.bound(bdf, VFIO):
        group = guest.host.function(bdf).iommu_group
        said = attach(guest.host, bdf)
    words = (f"/dev/vfio/{group}", "No such file or directory")
    assert all(word in said for word in words), said or "QEMU accepted it"


@pytest.mark.rule("UIO-04")
def test_qemu_needs_an_iommu(
    unsafe_guest: DriverGuest, bare_edu: PciFunction, attach: Attach
) -> None:
    """QEMU does not assign a function that vfio has without an IOMMU."""
    check_qemu_refuses(unsafe_guest, bare_edu.bdf, attach)


@pytest.mark.negative_control("UIO-04")
def test_a_group_with_an_iommu_is_noticed(
    shielded_guest: DriverGuest, edu: PciFunction, attach: Attach
) -> None:
    """QEMU assigns the same function below an IOMMU, and the check fails."""
    with must_fail():
        check_qemu_refuses(shielded_guest, edu.bdf, attach)
