"""Devices under a vIOMMU: what is refused when one is assigned, and when one is hot-added."""

from __future__ import annotations

import pytest

from harness.host.host import Host
from harness.lab.vtd import properties_of
from harness.machine.command import Device, MachineSpec
from harness.machine.machine import Machine
from harness.machine.outcome import Outcome, outcome_of_hot_add
from harness.machine.vtd import vtd_spec
from harness.model.pci import PciFunction
from harness.model.vtd.config import VtdConfig
from harness.model.vtd.expected import Irqchip
from harness.model.vtd.refusals import HOT_ADDED, WITHOUT_CACHING_MODE
from harness.suite_fixtures import Launch
from harness.testing import must_fail
from suites.intel_iommu.conftest import OutcomeOf
from suites.intel_iommu.test_refusals import check_outcome

IRQCHIPS = pytest.mark.parametrize("irqchip", [Irqchip.SPLIT, Irqchip.ON], ids=lambda i: i.value)
REFUSALS = pytest.mark.parametrize(
    "refusal",
    [pytest.param(r, id=r.rule, marks=pytest.mark.rule(r.rule)) for r in WITHOUT_CACHING_MODE],
)
CONTROLS = pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(r, id=r.rule, marks=pytest.mark.negative_control(r.rule))
        for r in WITHOUT_CACHING_MODE
    ],
)


def machine_with(irqchip: Irqchip, host: Host, *, caching_mode: bool) -> MachineSpec:
    """Return a paused machine with intel-iommu."""
    config = VtdConfig.of(irqchip, caching_mode=caching_mode)
    return vtd_spec(config, accel=host.accelerator.option, properties=properties_of(host))


def assigned(function: PciFunction, bus: str, addr: str) -> Device:
    """Return *function* as an assigned device."""
    return Device("vfio-pci", "spare", bus, addr, {"host": str(function.bdf)})


def check_still_there(machine: Machine, outcome: Outcome, words: str) -> None:
    """QEMU refuses the device with *words*, and the machine lives on."""
    check_outcome(outcome, words)
    assert machine.qmp.execute("query-status")["status"] in ("prelaunch", "paused", "running")


@IRQCHIPS
@REFUSALS
def test_assignment_needs_caching_mode(
    host: Host, refusal_words: str, outcome: OutcomeOf, spare: PciFunction, irqchip: Irqchip
) -> None:
    """An assigned device below an intel-iommu without caching mode is refused at the start."""
    spec = machine_with(irqchip, host, caching_mode=False)

    said = outcome(spec.adding(assigned(spare, "pcie.0", "0x10")))

    check_outcome(said, refusal_words)


@IRQCHIPS
@CONTROLS
def test_assignment_with_caching_mode_is_noticed(
    host: Host, refusal_words: str, outcome: OutcomeOf, spare: PciFunction, irqchip: Irqchip
) -> None:
    """With caching mode the device is accepted, and the check of the refusal fails."""
    spec = machine_with(irqchip, host, caching_mode=True)

    said = outcome(spec.adding(assigned(spare, "pcie.0", "0x10")))

    with must_fail():
        check_outcome(said, refusal_words)


@pytest.mark.rule("VTD-19")
def test_hot_added_device_needs_caching_mode(
    host: Host, launch: Launch, spare: PciFunction
) -> None:
    """Hot-adding an assigned device without caching mode is refused; the machine lives on."""
    machine = launch(machine_with(Irqchip.SPLIT, host, caching_mode=False))

    said = outcome_of_hot_add(machine, assigned(spare, "port2", "0"))

    check_still_there(machine, said, HOT_ADDED)


@pytest.mark.negative_control("VTD-19")
def test_hot_added_device_with_caching_mode_is_noticed(
    host: Host, launch: Launch, spare: PciFunction
) -> None:
    """With caching mode the hot-added device is accepted, and the check fails."""
    machine = launch(machine_with(Irqchip.SPLIT, host, caching_mode=True))

    said = outcome_of_hot_add(machine, assigned(spare, "port2", "0"))

    with must_fail():
        check_still_there(machine, said, HOT_ADDED)


def check_is_cold_only(machine: Machine, device: Device) -> None:
    """*device* cannot be hot-added, and the machine lives on."""
    words = f"Device '{device.driver}' does not support hotplugging"
    check_still_there(machine, outcome_of_hot_add(machine, device), words)


@pytest.fixture
def without_iommu(host: Host, launch: Launch) -> Machine:
    """A paused machine without a vIOMMU."""
    config = VtdConfig(present=False)
    return launch(vtd_spec(config, accel=host.accelerator.option, properties=properties_of(host)))


@pytest.mark.rule("VTD-16")
def test_the_iommu_itself_is_not_hot_added(without_iommu: Machine) -> None:
    """An intel-iommu cannot be hot-added."""
    check_is_cold_only(without_iommu, Device("intel-iommu", "late"))


@pytest.mark.negative_control("VTD-16")
def test_a_device_that_can_be_hot_added_is_noticed(without_iommu: Machine) -> None:
    """A device that QEMU hot-adds on a free port fails the check."""
    with must_fail():
        check_is_cold_only(without_iommu, Device("edu", "late", "port2", "0"))
