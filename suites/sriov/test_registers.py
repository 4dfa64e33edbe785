"""The SR-IOV capability of the QEMU under test, register by register; nothing runs."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from harness.host.host import Host
from harness.machine.bare_pci import Q35, BarePci, connect, with_qtest
from harness.machine.command import Device, MachineSpec
from harness.model.pci import Bdf
from harness.suite_fixtures import Launch
from harness.testing import must_fail

pytestmark = pytest.mark.full

PF = Bdf(0, 0, 1, 0)
CAPABILITY = 0x10
CONTROL, TOTAL, NUMBER = 0x08, 0x0E, 0x10
ENABLE = 1 << 0
"""VF Enable (PCIe 6.0, 9.3.3.3.1)."""


@dataclass(frozen=True)
class Registers:
    """The SR-IOV capability of an igb on the root bus."""

    pci: BarePci
    at: int

    def read(self, offset: int) -> int:
        """Read a register of 16 bits."""
        return self.pci.read(PF, self.at + offset, 2)

    def write(self, offset: int, value: int) -> None:
        """Write it."""
        self.pci.write(PF, self.at + offset, value, 2)


@pytest.fixture
def registers(host: Host, launch: Launch) -> Iterator[Registers]:
    """The registers of an igb that nobody has touched."""
    if not (host.qemu.version.has(10, 1) or fixed_in_stable(host)):
        pytest.skip("NumVFs and VF Enable guard each other since QEMU 10.1 (CVE-2025-54567)")
    spec = MachineSpec(
        name="registers",
        accel=host.accelerator.option,
        memory_mib=64,
        devices=(Device("igb", "igb", "pcie.0", "1", {"romfile": ""}),),
        paused=True,
    )
    machine = launch(with_qtest(spec))
    qtest = connect(machine)
    try:
        pci = BarePci(qtest, Q35)
        yield Registers(pci, pci.extended(PF, CAPABILITY))
    finally:
        qtest.close()


def fixed_in_stable(host: Host) -> bool:
    """Say whether it is the stable release of 10.0 that was seen to have the change, or later."""
    version = host.qemu.version
    return version.has(10, 0) and version.micro >= 13


def check_fixed(registers: Registers, value: int) -> None:
    """NumVFs keeps its value whatever is written."""
    before = registers.read(NUMBER)
    registers.write(NUMBER, value)
    assert registers.read(NUMBER) == before, f"{before} became {registers.read(NUMBER)}"


@pytest.mark.rule("SRV-24")
def test_number_is_fixed_while_enabled(registers: Registers) -> None:
    """NumVFs cannot be changed while VF Enable is set."""
    registers.write(NUMBER, 2)
    registers.write(CONTROL, ENABLE)
    assert (registers.read(NUMBER), registers.read(CONTROL) & ENABLE) == (2, ENABLE)

    check_fixed(registers, 5)


@pytest.mark.negative_control("SRV-24")
def test_a_number_that_can_be_changed_is_noticed(registers: Registers) -> None:
    """While VF Enable is clear it can."""
    registers.write(NUMBER, 2)

    with must_fail():
        check_fixed(registers, 5)


def check_not_enabled(registers: Registers, number: int) -> None:
    """With this number virtual functions cannot be enabled."""
    registers.write(NUMBER, number)
    registers.write(CONTROL, ENABLE)
    assert not registers.read(CONTROL) & ENABLE, f"enabled with NumVFs {number}"


@pytest.mark.rule("SRV-24")
def test_more_than_there_are_cannot_be_enabled(registers: Registers) -> None:
    """VF Enable cannot be set while NumVFs is more than TotalVFs."""
    check_not_enabled(registers, registers.read(TOTAL) + 1)


@pytest.mark.negative_control("SRV-24")
def test_all_that_there_are_is_noticed(registers: Registers) -> None:
    """With all that there are it can."""
    with must_fail():
        check_not_enabled(registers, registers.read(TOTAL))
