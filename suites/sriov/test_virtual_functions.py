"""What a virtual function is, and is not, as its host sees it."""

import pytest

from harness.guest.sriov import Sriov
from harness.guest.system import System
from harness.model.pci import BarKind, Bdf, PciFunction
from harness.testing import must_fail
from suites.sriov.conftest import COUNT, Family


def raw_ids(system: System, function: PciFunction) -> tuple[int, int]:
    """Return vendor and device id as configuration space has them."""
    said = system.probe("config", "read", str(function.bdf), 0, "--width", "4")["last"]
    word = int(said, 16)
    return word & 0xFFFF, word >> 16


def check_ids(igb: Sriov, virtual: PciFunction) -> None:
    """Linux shows the vendor of the physical function and sriov_vf_device; the device nothing."""
    physical = igb.system.function(igb.bdf)
    assert virtual.id.vendor == physical.id.vendor
    assert virtual.id.device == int(igb.read("vf_device"), 16)
    assert raw_ids(igb.system, virtual) == (0xFFFF, 0xFFFF)


@pytest.mark.parametrize("number", range(COUNT))
@pytest.mark.rule("SRV-09")
def test_ids_come_from_the_physical_function(igb: Sriov, family: Family, number: int) -> None:
    """A virtual function has no ids of its own in configuration space."""
    check_ids(igb, family.virtual[number])


@pytest.mark.negative_control("SRV-09")
def test_ids_of_its_own_are_noticed(igb: Sriov, family: Family) -> None:
    """The physical function has."""
    with must_fail():
        check_ids(igb, family.physical)


def check_lean(function: PciFunction) -> None:
    """No expansion ROM, no ports, no interrupt pin; MSI-X."""
    assert function.rom_size == 0
    assert all(bar.kind is not BarKind.IO for bar in function.bars), function.bars
    assert function.interrupt_pin == 0
    assert function.msix is not None


@pytest.mark.parametrize("number", range(COUNT))
@pytest.mark.rule("SRV-11")
def test_virtual_functions_are_lean(family: Family, number: int) -> None:
    """A virtual function has no ROM, no I/O ports and no INTx."""
    check_lean(family.virtual[number])


@pytest.mark.negative_control("SRV-11")
def test_ports_and_pins_are_noticed(family: Family) -> None:
    """The physical function has ports and a pin."""
    with must_fail():
        check_lean(family.physical)


ARI_FORWARDING = 1 << 5
"""Of Device Control 2 (PCIe 6.0, 7.5.3.16)."""


def forwards_ari(system: System, port: PciFunction) -> bool:
    """Say whether the port lets functions above 7 be addressed."""
    express = next(c.offset for c in port.capabilities if c.id == 0x10)
    said = system.probe("config", "read", str(port.bdf), express + 0x28, "--width", "2")["last"]
    return bool(int(said, 16) & ARI_FORWARDING)


def port_of(igb: Sriov) -> PciFunction:
    """Return the port that leads to the function."""
    said = igb.system.run(["readlink", "-f", f"/sys/bus/pci/devices/{igb.bdf}/.."]).stdout
    return igb.system.function(Bdf.parse(said.strip().rpartition("/")[2]))


def check_forwarding(system: System, port: PciFunction) -> None:
    """The port forwards to any function number."""
    assert forwards_ari(system, port), f"{port.bdf} does not"


@pytest.mark.rule("SRV-31")
def test_port_forwards_to_far_functions(igb: Sriov, family: Family) -> None:
    """Virtual functions from 10.0 on lie behind a port with ARI forwarding on."""
    assert all(virtual.bdf.device >= 0x10 for virtual in family.virtual)

    check_forwarding(igb.system, port_of(igb))


@pytest.mark.negative_control("SRV-31")
def test_a_port_without_is_noticed(igb: Sriov) -> None:
    """Another port of the same make, which leads to nothing with ARI, does not forward."""
    port = port_of(igb)
    other = next(f for f in igb.system.find(port.id) if f.bdf != port.bdf)

    with must_fail():
        check_forwarding(igb.system, other)
