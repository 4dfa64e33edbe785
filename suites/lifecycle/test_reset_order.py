"""Resets that QEMU tries one after the other: by the function, by its bus, by its power state.

An e1000e has no function level reset, and says that a change of its power state resets it
(No_Soft_Reset is clear). What is left of ``vfio_pci_reset()`` depends on what its bus leads to.
"""

from collections.abc import Callable, Iterator

import pytest

from harness.lab.bare import Bare
from harness.lab.odd_host import OddHost
from harness.machine.machine import Machine
from harness.model.pci import Bdf, PciFunction
from harness.parse.trace_log import TraceEvent
from harness.testing import must_fail
from suites.lifecycle.conftest import StartOdd, on_root_bus

pytestmark = pytest.mark.full

SLOT, BESIDE = 0x10, 0x11
SAYS: dict[str, Callable[[TraceEvent], str]] = {
    "vfio_pci_reset": lambda _: "reset",
    "vfio_pci_reset_flr": lambda _: "by the function",
    "vfio_pci_hot_reset": lambda event: f"bus, {event.arguments.split()[-1]}",
    "vfio_pci_hot_reset_result": lambda event: event.arguments.partition("reset: ")[2],
    "vfio_pci_reset_pm": lambda _: "by its power state",
}
"""What is said of a trace event, by its name."""
BY_BUS = ["bus, one", "Success"]
BUS_IS_NONE = ["bus, one", "by its power state"]
"""There is no bus that could be reset, or it would reset what the machine knows that it has."""
BUS_IS_REFUSED = ["bus, one", "Invalid argument", "by its power state"]
"""The kernel does not reset a function of nobody."""
BY_FUNCTION = ["by the function"]
SCRATCH, VALUE = 0x2800, 0x5A5A_5A00
"""RDBAL of an e1000e (82574L, 10.2.5.6): it keeps what is written to it until a reset."""


def traced(machine: Machine, *bdfs: Bdf) -> list[list[str]]:
    """Reset the machine; return what QEMU traced of each function of *bdfs*, in order."""
    with machine.tracing("vfio_pci_reset*", "vfio_pci_hot_reset*") as window:
        mark = machine.qmp.mark()
        machine.qmp.execute("system_reset")
        machine.qmp.wait_event("RESET", timeout=30, since=mark)
    events = [event for event in window.events if event.name in SAYS]
    return [[SAYS[e.name](e) for e in events if str(bdf) in e.arguments] for bdf in bdfs]


def check_tried(found: list[str], wanted: list[str]) -> None:
    """Its turn come, these ways were tried one after the other, and none after the last."""
    turn = found.index("reset") if "reset" in found else len(found)
    assert found[turn + 1 :] == wanted, f"{found}, not {wanted} at the end"


# -- one function -----------------------------------------------------------------------------


@pytest.fixture
def card(odd: OddHost) -> Iterator[PciFunction]:
    """An e1000e, alone on its bus, in the hands of vfio-pci."""
    function = odd.single_card
    with odd.host.bound(function.bdf):
        yield function


@pytest.fixture
def with_card(card: PciFunction, assign: StartOdd) -> Bare:
    """A machine that has it."""
    return assign(on_root_bus("card", SLOT, card))


@pytest.mark.rule("RST-01")
@pytest.mark.negative_control("RST-01")
def test_bus_comes_before_power_state(with_card: Bare, card: PciFunction) -> None:
    """Without a function level reset what is alone on its bus is reset with it."""
    (found,) = traced(with_card.machine, card.bdf)

    check_tried(found, BY_BUS)
    with must_fail():
        check_tried(found, BUS_IS_NONE)
    with must_fail():
        check_tried(found, BY_FUNCTION)


def check_forgotten(machine: Bare, function: PciFunction) -> None:
    """The function does not have any more what was written to it."""
    bar = machine.program(SLOT, function.bars)[0]
    found = machine.qtest.read(bar + SCRATCH)
    assert found != VALUE, f"it still has {VALUE:#x}"


@pytest.mark.rule("RST-01")
@pytest.mark.negative_control("RST-01")
def test_reset_of_the_bus_is_one_of_the_function(with_card: Bare, card: PciFunction) -> None:
    """What was traced was done: the function has forgotten what the guest wrote."""
    with_card.qtest.write(with_card.program(SLOT, card.bars)[0] + SCRATCH, VALUE)
    with must_fail():
        check_forgotten(with_card, card)

    traced(with_card.machine, card.bdf)

    check_forgotten(with_card, card)


@pytest.fixture
def lone_card(odd: OddHost) -> Iterator[PciFunction]:
    """An e1000e on the root bus of its host, in the hands of vfio-pci."""
    function = odd.lone_card
    with odd.host.bound(function.bdf):
        yield function


@pytest.mark.rule("RST-01")
@pytest.mark.negative_control("RST-01")
def test_power_state_comes_last(lone_card: PciFunction, assign: StartOdd) -> None:
    """On a bus that nobody can reset the power state is what is left."""
    (found,) = traced(assign(on_root_bus("card", SLOT, lone_card)).machine, lone_card.bdf)

    check_tried(found, BUS_IS_NONE)
    with must_fail():
        check_tried(found, BY_BUS)


# -- two in one slot --------------------------------------------------------------------------


@pytest.fixture
def left(odd: OddHost) -> Iterator[PciFunction]:
    """The first e1000e of a slot, in the hands of vfio-pci; nobody has the second."""
    left, right = odd.cards
    assert (left.iommu_group, right.driver) == (right.iommu_group, None), (left, right)
    with odd.host.bound(left.bdf):
        yield left


@pytest.fixture
def both(odd: OddHost, left: PciFunction) -> Iterator[tuple[PciFunction, PciFunction]]:
    """Both of them, in the hands of vfio-pci."""
    right = odd.cards[1]
    with odd.host.bound(right.bdf):
        yield left, right


@pytest.mark.rule("RST-01")
@pytest.mark.negative_control("RST-01")
def test_a_sibling_of_nobody_is_not_reset(left: PciFunction, assign: StartOdd) -> None:
    """Where the bus leads to another function too, which vfio has not, it is not reset."""
    (found,) = traced(assign(on_root_bus("left", SLOT, left)).machine, left.bdf)

    check_tried(found, BUS_IS_REFUSED)
    with must_fail():
        check_tried(found, BY_BUS)


@pytest.mark.rule("RST-01")
@pytest.mark.negative_control("RST-01")
def test_a_sibling_that_nobody_uses_is_reset_too(
    both: tuple[PciFunction, PciFunction], assign: StartOdd
) -> None:
    """Where vfio has both and the machine one, in a group that is its own, both are reset."""
    left, _right = both

    (found,) = traced(assign(on_root_bus("left", SLOT, left)).machine, left.bdf)

    check_tried(found, BY_BUS)
    with must_fail():
        check_tried(found, BUS_IS_REFUSED)


def check_together(found: list[list[str]]) -> None:
    """One of them was reset with the bus, for all, and only then it was the turn of each."""
    first = [each[: each.index("reset")] for each in found]
    assert sorted(first, key=len) == [[], ["bus, multi", "Success"]], found
    for each in found:
        check_tried(each, BUS_IS_NONE)


@pytest.mark.rule("RST-01")
def test_functions_of_one_machine_are_reset_together(
    both: tuple[PciFunction, PciFunction], assign: StartOdd
) -> None:
    """A machine that has both resets their bus once, before the turn of each."""
    left, right = both
    machine = assign(on_root_bus("left", SLOT, left), on_root_bus("right", BESIDE, right)).machine

    check_together(traced(machine, left.bdf, right.bdf))


@pytest.mark.negative_control("RST-01")
def test_a_function_that_is_reset_alone_is_noticed(
    both: tuple[PciFunction, PciFunction], assign: StartOdd
) -> None:
    """A machine that has one resets no bus before its turn."""
    left, _right = both
    (found,) = traced(assign(on_root_bus("left", SLOT, left)).machine, left.bdf)

    with must_fail():
        check_together([found, found])
