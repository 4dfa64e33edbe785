"""What a function reaches that no driver has: the kernel's own domains, strict, lazy and pt."""

import pytest

from harness.guest.canary import canary
from harness.guest.stray import stray_write
from harness.lab.grounds import Grounds, Plot, taken_out
from harness.lab.nested import Nested
from harness.machine.vtd import read_registers
from harness.parse.dmesg import DomainType, iommu_boot
from harness.parse.trace_log import TraceEvent
from harness.testing import must_fail
from suites.intel_iommu.test_guest import STRAY
from suites.intel_iommu.test_views import nodes, vtd_blocks
from suites.isolation.checks import IOVA, give
from suites.isolation.conftest import on


def check_undriven(plot: Plot) -> None:
    """A function without a driver does not reach the page of a process."""
    with plot.undriven(), canary(plot.system) as page:
        stray_write(plot.system, plot.bdf, page.address)

        assert page.intact, page.look()


@on(
    "L1-strict-edu", "L1-lazy-edu", "L2-intel-emulated", "L2-virtio-emulated",
    "L2-lazy-emulated", "L2-amd-emulated",
)  # fmt: skip
@pytest.mark.rule("ISO-17")
def test_a_function_without_a_driver_reaches_nothing(plot: Plot) -> None:
    """In a domain that the kernel translates, strict or lazy, nothing is mapped for nobody."""
    check_undriven(plot)


@on("L1-pt-edu", "L2-pt-emulated")
@pytest.mark.negative_control("ISO-17")
def test_a_function_that_is_passed_through_is_noticed(plot: Plot) -> None:
    """With ``iommu=pt`` it reaches all memory, and the check fails."""
    with must_fail():
        check_undriven(plot)


KINDS = {
    "L1-strict-edu": "DMA",
    "L1-lazy-edu": "DMA-FQ",
    "L1-pt-edu": "identity",
    "L2-intel-emulated": "DMA",
    "L2-pt-emulated": "identity",
    "L2-lazy-emulated": "DMA-FQ",
    "L2-amd-emulated": "DMA",
}


def check_kind(plot: Plot, kind: str) -> None:
    """The group of the function is of that kind when no driver has it."""
    with plot.undriven():
        path = f"/sys/bus/pci/devices/{plot.bdf}/iommu_group/type"
        found = plot.system.read_text(path).strip()
    assert found == kind, found


@on(*KINDS)
@pytest.mark.rule("ISO-17")
def test_grounds_are_what_their_names_say(plot: Plot) -> None:
    """The kernel's own domain is strict (DMA), lazy (DMA-FQ) or passed through (identity)."""
    check_kind(plot, KINDS[plot.name])


@on("L1-pt-edu", "L2-pt-emulated")
@pytest.mark.negative_control("ISO-17")
def test_another_kind_is_noticed(plot: Plot) -> None:
    """A group that is passed through is not taken for lazy."""
    with must_fail():
        check_kind(plot, KINDS["L1-lazy-edu"])


# -- a guest with iommu=pt --------------------------------------------------------------------


def check_passed_through(nested: Nested) -> None:
    """The kernel says so, the unit can (ECAP.PT), and a function sees memory as it is."""
    assert nested.guest is not None
    domain = iommu_boot(nested.guest.kernel_log().splitlines()).domain_type
    able = read_registers(nested.machine).ecap >> 6 & 1
    name = f"vtd-{STRAY.slot}"
    tree = nested.machine.memory_tree(disabled=True)
    block = next(b for b in vtd_blocks(tree) if b.roots[0].name == name)
    off = [wanted for wanted in (f"{name}-dmar", "vtd-nodmar") if nodes(block, wanted)[0].disabled]
    assert (domain, able, off) == (DomainType.PASSTHROUGH, 1, [f"{name}-dmar"]), (
        f"domains are {domain}, ECAP.PT is {able}, disabled: {off}"
    )


@on("L2-pt-emulated")
@pytest.mark.rule("VTD-46")
def test_functions_are_passed_through(plot: Plot, grounds: Grounds) -> None:
    """With ``iommu=pt`` a function without a driver is in ``vtd-nodmar``."""
    check_passed_through(grounds.guest(plot.ground))


@on("L2-intel-emulated")
@pytest.mark.negative_control("VTD-46")
def test_functions_that_are_translated_are_noticed(plot: Plot, grounds: Grounds) -> None:
    """In a guest without it the check fails."""
    with must_fail():
        check_passed_through(grounds.guest(plot.ground))


# -- plugged while the guest translates -------------------------------------------------------

LISTENING, REPLAYED, WALKED = (
    "vfio_listener_region_add_iommu",
    "vtd_replay_ce_",
    "vtd_page_walk_one",
)


def check_replayed(events: tuple[TraceEvent, ...]) -> None:
    """QEMU listened to the function's address space, replayed it, and followed its mappings."""
    names = [event.name for event in events]
    walked = [event.fields.get("iova") for event in events if event.name == WALKED]
    replayed = any(name.startswith(REPLAYED) for name in names)
    found = {"listened": LISTENING in names, "replayed": replayed, "followed": IOVA in walked}
    assert all(found.values()), f"{found}: {names}"


@on("L2-intel-edu")
@pytest.mark.rule("VTD-63")
def test_a_function_that_is_plugged_is_replayed(plot: Plot, grounds: Grounds) -> None:
    """A function that is plugged while the guest translates is replayed, then followed."""
    nested = grounds.guest(plot.ground)
    with nested.machine.tracing(LISTENING, f"{REPLAYED}*", WALKED) as window:
        with taken_out(nested, "edu"):
            pass
        with grounds.plot(plot.ground, "edu").engine() as engine:
            give(engine)

    check_replayed(window.events)


@on("L2-intel-edu")
@pytest.mark.negative_control("VTD-63")
def test_a_function_that_was_there_is_noticed(plot: Plot, grounds: Grounds) -> None:
    """One that was there is followed, but neither listened to anew nor replayed."""
    nested = grounds.guest(plot.ground)
    with (
        nested.machine.tracing(LISTENING, f"{REPLAYED}*", WALKED) as window,
        plot.engine() as engine,
    ):
        give(engine)

    with must_fail():
        check_replayed(window.events)
