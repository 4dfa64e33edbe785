"""Function level reset and MSI-X: who switches it off, and who on again."""

from dataclasses import dataclass, replace

import pytest

from harness.host.host import Host
from harness.lab.bare import Bare, Registers
from harness.model.pci import PciFunction
from harness.suite_fixtures import Free
from harness.testing import must_fail
from suites.lifecycle.conftest import StartBare, on_root_bus

pytestmark = pytest.mark.full

SLOT = 0x10
EXPRESS, MSIX = 0x10, 0x11
"""Capability ids."""
MSIX_CONTROL, MSIX_ENABLE = 2, 1 << 15
"""PCIe 6.0, 7.7.2.2."""
DEVICE_CONTROL, INITIATE_FLR = 8, 1 << 15
"""PCIe 6.0, 7.5.3.4."""
CC, SOME_CC = 0x14, 0x0046_0000
"""Controller configuration of an nvme, and a value without EN that only a reset takes away."""


@dataclass(frozen=True, slots=True)
class Driven:
    """An nvme that a guest has set up."""

    bare: Bare
    function: PciFunction
    registers: Registers
    bar: int

    @property
    def msix_on(self) -> bool:
        """Say whether the guest sees MSI-X enabled."""
        at = self.registers.capability(MSIX) + MSIX_CONTROL
        return bool(self.registers.read(at) & MSIX_ENABLE)

    @property
    def was_reset(self) -> bool:
        """Say whether the device has forgotten what the guest wrote."""
        return self.bare.qtest.read(self.bar + CC) != SOME_CC


@pytest.fixture
def driven(free: Free, bare: StartBare) -> Driven:
    """An nvme with MSI-X on and something written to its registers."""
    function = free("nvme")
    machine = bare(on_root_bus("nvme", SLOT, function))
    registers = machine.registers(SLOT)
    bar = machine.program(SLOT, function.bars)[0]
    machine.qtest.write(bar + CC, SOME_CC)
    registers.change(registers.capability(MSIX) + MSIX_CONTROL, set=MSIX_ENABLE)
    found = Driven(machine, function, registers, bar)
    assert found.msix_on and not found.was_reset
    return found


def check_reset(driven: Driven, *, msix: bool) -> None:
    """The device was reset; MSI-X is on, or off, afterwards."""
    assert driven.was_reset, "the device still has what the guest wrote"
    assert driven.msix_on is msix, f"MSI-X is {'on' if driven.msix_on else 'off'}"


@pytest.mark.rule("RST-16")
@pytest.mark.negative_control("RST-16")
def test_a_reset_by_the_guest_leaves_its_vectors(driven: Driven) -> None:
    """After an FLR by the guest MSI-X is as it was: Linux on the host saves and restores it."""
    with must_fail():
        check_reset(driven, msix=True)

    at = driven.registers.capability(EXPRESS) + DEVICE_CONTROL
    driven.registers.change(at, set=INITIATE_FLR)

    check_reset(driven, msix=True)
    with must_fail():
        check_reset(driven, msix=False)


@pytest.mark.rule("RST-16")
@pytest.mark.negative_control("RST-16")
def test_a_reset_of_the_machine_takes_its_vectors(driven: Driven) -> None:
    """After an FLR by a reset of the machine MSI-X is off, until a driver enables it again."""
    mark = driven.bare.machine.qmp.mark()
    driven.bare.machine.qmp.execute("system_reset")
    driven.bare.machine.qmp.wait_event("RESET", timeout=30, since=mark)

    programmed = replace(driven, bar=driven.bare.program(SLOT, driven.function.bars)[0])
    check_reset(programmed, msix=False)
    with must_fail():
        check_reset(programmed, msix=True)


def check_off(host: Host, function: PciFunction, at: int) -> None:
    """MSI-X is off in the device."""
    word = int(host.probe("config", "read", str(function.bdf), at, "--width", "2")["last"], 16)
    assert not word & MSIX_ENABLE, f"{word:#06x}"


@pytest.mark.rule("RST-16")
@pytest.mark.negative_control("RST-16")
def test_a_reset_of_an_unused_function_switches_msix_off(host: Host, free: Free) -> None:
    """After an FLR of a function that nobody uses MSI-X is off, whatever the bit was before."""
    function = free("nvme")
    at = next(c.offset for c in function.capabilities if c.id == MSIX and not c.extended)
    at += MSIX_CONTROL
    host.probe("config", "write", str(function.bdf), at, "--width", "2", "--value", MSIX_ENABLE)
    with must_fail():
        check_off(host, function, at)

    host.reset(function.bdf)

    check_off(host, function, at)
