"""IOMMU groups of the host."""

import pytest

from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import TEST_DEVICES
from harness.model.pci import Bdf
from harness.testing import must_fail

SLOT_OF_ISA_BRIDGE = 0x1F


def check_alone(host: Host, bdf: Bdf) -> None:
    """The function shares its group with no other."""
    members = next(members for members in host.iommu_groups().values() if bdf in members)
    assert members == (bdf,), members


def found(host: Host, name: str) -> Bdf:
    """Return where the host has a test device."""
    return host.find_one(TEST_DEVICES[name].id).bdf


@pytest.mark.rule("NST-24", "VTD-55")
def test_conventional_device_is_alone(virtual_host: VirtualHost) -> None:
    """A conventional device directly on the root bus is alone in its group."""
    bdf = found(virtual_host, "edu")

    assert bdf.bus == 0 and not virtual_host.function(bdf).is_express
    check_alone(virtual_host, bdf)


@pytest.mark.parametrize("name", ["nvme", "e1000e", "igb"])
@pytest.mark.rule("VTD-55")
def test_device_behind_a_root_port_is_alone(virtual_host: VirtualHost, name: str) -> None:
    """A function behind its own root port is alone in its group."""
    bdf = found(virtual_host, name)

    assert bdf.bus > 0
    check_alone(virtual_host, bdf)


@pytest.mark.negative_control("NST-24", "VTD-55")
def test_functions_of_one_slot_are_noticed(virtual_host: VirtualHost) -> None:
    """The functions of the chipset's slot, which has no ACS, are not alone."""
    with must_fail():
        check_alone(virtual_host, Bdf(0, 0, SLOT_OF_ISA_BRIDGE, 2))
