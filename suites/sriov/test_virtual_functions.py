"""What a virtual function is, and is not, as its host sees it."""

import pytest

from harness.guest.sriov import Sriov
from harness.host.host import Host
from harness.model.pci import BarKind, Bdf, PciFunction
from harness.testing import must_fail
from suites.sriov.conftest import COUNT, Family


def raw_ids(host: Host, function: PciFunction) -> tuple[int, int]:
    """Return vendor and device id as configuration space has them."""
    said = host.probe("config", "read", str(function.bdf), 0, "--width", "4")["last"]
    word = int(said, 16)
    return word & 0xFFFF, word >> 16


def check_ids(igb: Sriov, host: Host, virtual: PciFunction) -> None:
    """Linux shows the vendor of the physical function and sriov_vf_device; the device nothing."""
    physical = host.function(igb.bdf)
    assert virtual.id.vendor == physical.id.vendor
    assert virtual.id.device == int(igb.read("vf_device"), 16)
    assert raw_ids(host, virtual) == (0xFFFF, 0xFFFF)


@pytest.mark.parametrize("number", range(COUNT))
@pytest.mark.rule("SRV-09")
def test_ids_come_from_the_physical_function(
    igb: Sriov, host: Host, family: Family, number: int
) -> None:
    """A virtual function has no ids of its own in configuration space."""
    check_ids(igb, host, family.virtual[number])


@pytest.mark.negative_control("SRV-09")
def test_ids_of_its_own_are_noticed(igb: Sriov, host: Host, family: Family) -> None:
    """The physical function has."""
    with must_fail():
        check_ids(igb, host, family.physical)


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


def forwards_ari(host: Host, port: PciFunction) -> bool:
    """Say whether the port lets functions above 7 be addressed."""
    express = next(c.offset for c in port.capabilities if c.id == 0x10)
    said = host.probe("config", "read", str(port.bdf), express + 0x28, "--width", "2")["last"]
    return bool(int(said, 16) & ARI_FORWARDING)


def port_of(host: Host, bdf: Bdf) -> PciFunction:
    """Return the port that leads to *bdf*."""
    path = host.run(["readlink", "-f", f"/sys/bus/pci/devices/{bdf}/.."]).stdout.strip()
    return host.function(Bdf.parse(path.rpartition("/")[2]))


def check_forwarding(host: Host, bdf: Bdf) -> None:
    """The port before the function forwards to any function number."""
    assert forwards_ari(host, port_of(host, bdf))


@pytest.mark.rule("SRV-31")
def test_port_forwards_to_far_functions(host: Host, igb: Sriov, family: Family) -> None:
    """Virtual functions from 10.0 on lie behind a port with ARI forwarding on."""
    assert all(virtual.bdf.device >= 0x10 for virtual in family.virtual)

    check_forwarding(host, igb.bdf)


@pytest.mark.negative_control("SRV-31")
def test_a_port_without_is_noticed(host: Host, plain: Sriov) -> None:
    """The port of a function without ARI does not forward."""
    with must_fail():
        check_forwarding(host, plain.bdf)
