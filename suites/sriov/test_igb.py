"""Virtual functions of the host's igb."""

from dataclasses import replace

import pytest

from harness.guest.sriov import Sriov
from harness.guest.system import System
from harness.model.pci import Bdf, PciFunction, PciId
from harness.testing import must_fail
from suites.sriov.conftest import ARI, COUNT, SRIOV, Family

VF_ID = PciId(0x8086, 0x10CA)


def check_addresses(family: Family) -> None:
    """Each virtual function lies where offset and stride of the capability say."""
    offset, stride = family.word(0x14), family.word(0x16)
    first = family.physical.bdf.source_id + offset
    expected = [first + n * stride for n in range(COUNT)]
    assert [f.bdf.source_id for f in family.virtual] == expected


@pytest.mark.rule("SRV-08", "SRV-17")
def test_addresses_follow_offset_and_stride(family: Family) -> None:
    """Virtual functions lie at the routing id of the physical one + 0x80 + n x 2."""
    assert (family.word(0x14), family.word(0x16)) == (0x80, 2)
    check_addresses(family)


@pytest.mark.negative_control("SRV-08", "SRV-17")
def test_a_function_elsewhere_is_noticed(family: Family) -> None:
    """A virtual function right beside the first one fails the check."""
    first = family.virtual[0]
    moved = replace(first, bdf=replace(first.bdf, function=1))

    with must_fail():
        check_addresses(replace(family, virtual=(first, moved)))


def check_ids(family: Family, total: int) -> None:
    """The ids of both kinds and the total are those of an 82576."""
    assert family.physical.id == PciId(0x8086, 0x10C9)
    assert [f.id for f in family.virtual] == [VF_ID] * COUNT, family.virtual
    assert family.word(0x0E) == total, family.word(0x0E)


@pytest.mark.rule("SRV-16")
@pytest.mark.negative_control("SRV-16")
def test_ids_and_total(family: Family) -> None:
    """Physical 8086:10c9, virtual 8086:10ca, eight in all; not another number, nor other ids."""
    check_ids(family, 8)
    with must_fail():
        check_ids(family, 7)
    with must_fail():
        check_ids(replace(family, virtual=(family.virtual[0], family.physical)), 8)


def check_capabilities(family: Family, sriov: int) -> None:
    """ARI and SR-IOV lie where QEMU puts them."""
    assert (family.capability(ARI), family.capability(SRIOV)) == (0x150, sriov)


@pytest.mark.rule("SRV-18")
@pytest.mark.negative_control("SRV-18")
def test_capabilities(family: Family) -> None:
    """ARI lies at 0x150, SR-IOV at 0x160, and nowhere else."""
    check_capabilities(family, 0x160)
    with must_fail():
        check_capabilities(family, 0x140)


def sizes(function: PciFunction) -> dict[int, int]:
    """Return the sizes of the BARs."""
    return {bar.index: bar.size for bar in function.bars}


def check_layout(function: PciFunction, bars: dict[int, int], vectors: int) -> None:
    """BARs and MSI-X vectors are those of the device."""
    assert sizes(function) == bars
    assert function.msix is not None and function.msix.vectors == vectors, function.msix


PHYSICAL = {0: 0x20000, 1: 0x20000, 2: 0x20, 3: 0x4000}
VIRTUAL = {0: 0x4000, 3: 0x4000}


@pytest.mark.rule("SRV-19")
@pytest.mark.negative_control("SRV-20")
def test_layout_of_the_physical_function(family: Family) -> None:
    """The physical function has BARs of 128K, 128K, 32 and 16K bytes, and ten vectors."""
    check_layout(family.physical, PHYSICAL, 10)
    with must_fail():
        check_layout(family.physical, VIRTUAL, 3)


@pytest.mark.rule("SRV-20")
@pytest.mark.negative_control("SRV-19")
def test_layout_of_the_virtual_functions(family: Family) -> None:
    """A virtual function has two BARs of 16K, and three vectors."""
    check_layout(family.virtual[0], VIRTUAL, 3)
    check_layout(family.virtual[1], VIRTUAL, 3)
    with must_fail():
        check_layout(family.virtual[0], PHYSICAL, 10)


def check_alone(system: System, *functions: Bdf) -> None:
    """Each function has a group of its own."""
    shared = [m for m in system.iommu_groups().values() if set(m) & set(functions) and len(m) > 1]
    assert not shared, shared


@pytest.mark.rule("SRV-30")
@pytest.mark.negative_control("SRV-30")
def test_virtual_functions_are_alone(igb: Sriov, family: Family) -> None:
    """Each virtual function has its own IOMMU group; functions of the chipset's slot do not."""
    check_alone(igb.system, *(f.bdf for f in family.virtual))
    with must_fail():
        check_alone(igb.system, Bdf(0, 0, 0x1F, 2))
