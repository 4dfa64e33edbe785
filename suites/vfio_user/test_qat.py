"""A function in the shape of a virtual function of Intel's QAT C62x, in a real host.

The shape is a model: identity, one MSI vector, no Function Level Reset. What the kernel does
with it, and QEMU, is real.
"""

import pytest

from harness.errors import CommandFailed
from harness.host.vfio_file import VfioFile
from harness.lab.nested import Nested
from harness.lab.plugged import Plugged
from harness.model.pci import PciFunction, PciId
from harness.testing import must_fail
from suites.vfio_user.conftest import Prepared

QAT_VF = PciId(0x8086, 0x37C9)
CRYPTO = 0x0B40
"""Class and subclass: processor, co-processor."""


def check_identity(function: PciFunction) -> None:
    """It is seen as a QAT VF with one MSI vector."""
    vectors = function.msi.vectors if function.msi is not None else 0
    found = function.id, function.class_code >> 8, vectors, function.msix
    assert found == (QAT_VF, CRYPTO, 1, None), found


@pytest.mark.rule("QAT-01", "QAT-21")
def test_host_sees_a_qat_vf(host_stage: Prepared) -> None:
    """The host sees 8086:37c9, class 0b40, with one MSI vector."""
    check_identity(host_stage["solo"].function())


@pytest.mark.negative_control("QAT-01", "QAT-21")
def test_physical_function_is_not_taken_for_a_vf(host_stage: Prepared) -> None:
    """The check fails for the physical function."""
    with must_fail():
        check_identity(host_stage["pf"].function())


# -- the denylist -----------------------------------------------------------------------------


def check_denied(log: str, function: PciFunction) -> None:
    """The kernel says that vfio-pci does not take the function."""
    wanted = (
        f"vfio-pci {function.bdf}: {function.id} exists in vfio-pci device denylist, "
        "driver probing disallowed."
    )
    assert wanted in log, f"no {wanted!r} in:\n{log}"


@pytest.mark.rule("LIF-26", "QAT-20")
def test_vfio_pci_denies_a_qat_vf(host_stage: Prepared) -> None:
    """By default vfio-pci does not take the function, and says so."""
    check_denied(host_stage.denied, host_stage["solo"].function())


@pytest.mark.negative_control("LIF-26", "QAT-20")
def test_other_functions_are_not_denied(host_stage: Prepared) -> None:
    """The check fails for a function that is not on the list."""
    with must_fail():
        check_denied(host_stage.denied, host_stage["worker"].function())


def check_taken(function: PciFunction) -> None:
    """vfio-pci has the function."""
    assert function.driver == "vfio-pci", f"{function.bdf} is with {function.driver or 'nobody'}"


@pytest.mark.rule("LIF-26", "QAT-20")
@pytest.mark.negative_control("LIF-26", "QAT-20")
def test_vfio_pci_takes_it_where_the_list_is_off(host_stage: Prepared) -> None:
    """With disable_denylist=1 vfio-pci takes it, and lets it go again."""
    sibling, host = host_stage["sibling"], host_stage.stage.host
    with host.bound(sibling.bdf):
        check_taken(sibling.function())

    left = sibling.function()
    assert left.driver is None
    with must_fail():
        check_taken(left)


# -- reset ------------------------------------------------------------------------------------


def check_reset_by(plugged: Plugged, *methods: str) -> None:
    """The kernel can reset the function in these ways, and does if there is one."""
    found = plugged.stage.reset_methods(plugged.bdf)
    assert found == methods, f"reset_method of {plugged.bdf}: {found}"


def check_no_flr(function: PciFunction) -> None:
    """Device Capabilities say that it has no Function Level Reset (bit 28)."""
    express = next(cap.offset for cap in function.capabilities if cap.id == 0x10)
    capabilities = int.from_bytes(function.config[express + 4 : express + 8], "little")
    assert not capabilities & 1 << 28, f"DevCap {capabilities:#x}: FLReset+"


@pytest.mark.rule("QAT-07")
def test_vf_has_no_flr(host_stage: Prepared) -> None:
    """The function has no Function Level Reset."""
    check_no_flr(host_stage["solo"].function())


@pytest.mark.negative_control("QAT-07")
def test_flr_is_noticed(host_stage: Prepared) -> None:
    """The check fails for a function that has it."""
    with must_fail():
        check_no_flr(host_stage["flr"].function())


@pytest.mark.parametrize(("name", "messages"), [("solo", 0), ("worker", 1)])
@pytest.mark.rule("RST-04", "RST-05")
def test_alone_behind_a_port_its_bus_is_reset(
    host_stage: Prepared, name: str, messages: int
) -> None:
    """Without FLR, alone on its bus, the kernel resets it by its bus.

    QEMU tells the device if that said that it can be told (VFIO_DEVICE_FLAGS_RESET).
    """
    plugged = host_stage[name]
    before = plugged.device.resets["message"]

    plugged.stage.reset(plugged.bdf)

    check_reset_by(plugged, "bus")
    assert plugged.device.resets["message"] - before == messages, plugged.device.resets


@pytest.mark.rule("RST-04")
def test_flr_is_taken_first(host_stage: Prepared) -> None:
    """A function with FLR is reset by that first, and counts it."""
    flr = host_stage["flr"]
    before = flr.device.resets["flr"]

    flr.stage.reset(flr.bdf)

    check_reset_by(flr, "flr", "bus")
    assert flr.device.resets["flr"] == before + 1, flr.device.resets


@pytest.mark.rule("QAT-07", "RST-04", "RST-05")
def test_beside_its_physical_function_nothing_resets_it(host_stage: Prepared) -> None:
    """Without FLR, on the bus of its physical function, the kernel has no way to reset it."""
    sibling = host_stage["sibling"]
    check_reset_by(sibling)

    with pytest.raises(CommandFailed):
        sibling.stage.reset(sibling.bdf)


@pytest.mark.negative_control("RST-04", "RST-05")
def test_other_ways_to_reset_are_noticed(host_stage: Prepared) -> None:
    """The check fails for a function that can be reset in another way."""
    with must_fail():
        check_reset_by(host_stage["flr"], "bus")
    with must_fail():
        check_reset_by(host_stage["solo"])


def check_vfio_can_reset(plugged: Plugged, expected: bool) -> None:
    """Vfio says whether it can reset the function."""
    found = VfioFile(plugged.stage, plugged.bdf).info().can_reset
    assert found is expected, f"{plugged.bdf}: VFIO_DEVICE_FLAGS_RESET is {found}"


@pytest.mark.rule("RST-05")
def test_vfio_offers_no_reset_then(host_stage: Prepared) -> None:
    """Nor does vfio offer one, with both functions in its hands: they share a group."""
    sibling, pf, host = host_stage["sibling"], host_stage["pf"], host_stage.stage.host
    with host.bound(pf.bdf), host.bound(sibling.bdf):
        check_vfio_can_reset(sibling, False)


@pytest.mark.negative_control("RST-05")
def test_reset_that_vfio_offers_is_noticed(host_stage: Prepared) -> None:
    """The check fails for a function with FLR."""
    flr, host = host_stage["flr"], host_stage.stage.host
    with host.bound(flr.bdf), must_fail():
        check_vfio_can_reset(flr, False)


# -- groups -----------------------------------------------------------------------------------


def check_share_group(one: PciFunction, other: PciFunction) -> None:
    """Both are in one IOMMU group."""
    assert one.iommu_group == other.iommu_group, f"{one.iommu_group}, {other.iommu_group}"


@pytest.mark.rule("VTD-55")
def test_functions_of_one_slot_share_a_group(host_stage: Prepared) -> None:
    """Two functions of one slot without ACS are one IOMMU group."""
    check_share_group(host_stage["sibling"].function(), host_stage["pf"].function())


@pytest.mark.negative_control("VTD-55")
def test_functions_behind_two_ports_share_none(host_stage: Prepared) -> None:
    """The check fails for functions behind two ports."""
    with must_fail():
        check_share_group(host_stage["solo"].function(), host_stage["pf"].function())


# -- assigned onward --------------------------------------------------------------------------


@pytest.mark.rule("QAT-01", "QAT-21")
def test_nested_guest_sees_a_qat_vf(onward: Nested) -> None:
    """Assigned onward by vfio-pci, the nested guest sees the same identity and vector."""
    check_identity(onward.assigned["vf"].seen_by_guest())


@pytest.mark.negative_control("QAT-01", "QAT-21")
def test_another_device_of_that_guest_is_noticed(onward: Nested) -> None:
    """The check fails for another function that was assigned."""
    with must_fail():
        check_identity(onward.assigned["shades"].seen_by_guest())
