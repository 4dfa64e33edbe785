"""Power states: what of an assigned function is mapped while it sleeps."""

import pytest

from harness.host.host import Host
from harness.lab.bare import Bare
from harness.model.memory_map import Region
from harness.suite_fixtures import Free
from harness.testing import must_fail, skip
from suites.lifecycle.conftest import StartBare, on_root_bus

PM = 0x01
CONTROL = 4
"""Power management: capability id, and offset of PMCSR, whose low two bits are the state."""
D0, D1, D3 = 0, 1, 3
COMMAND = 0x04
SLOTS = {"nvme": 0x10, "igb": 0x11}


@pytest.fixture
def pair(free: Free, bare: StartBare) -> Bare:
    """A machine with an nvme and an igb, their BARs programmed."""
    functions = {name: free(name) for name in SLOTS}
    machine = bare(*(on_root_bus(n, slot, functions[n]) for n, slot in SLOTS.items()))
    for name, slot in SLOTS.items():
        machine.program(slot, functions[name].bars)
        assert machine.rows(name), f"{name} is not mapped"
    return machine


@pytest.fixture
def follows(host: Host) -> None:
    """This QEMU lets BARs follow the power state."""
    if not host.qemu.version.has(10, 0):
        skip("this QEMU leaves BARs mapped (RST-13)", enabled_by="QEMU 10.0 or later")


@pytest.fixture
def does_not_follow(host: Host) -> None:
    """This QEMU does not."""
    if host.qemu.version.has(10, 0):
        skip(
            "this QEMU takes BARs away (RST-12)",
            enabled_by="one before 10.0 (--qemu debian:bookworm)",
        )


def put(machine: Bare, name: str, state: int) -> None:
    """Put the function into a power state, as a guest does."""
    registers = machine.registers(SLOTS[name])
    registers.change(registers.capability(PM) + CONTROL, clear=3, set=state)


def check_unmapped(rows: list[Region]) -> None:
    """Nothing of the function is mapped."""
    assert not rows, f"{len(rows)} rows: {', '.join(row.name for row in rows)}"


def check_mapped(rows: list[Region], before: list[Region]) -> None:
    """What was mapped of the function still is, nothing more."""
    # QEMU lists its flat views in no particular order.
    assert sorted(map(str, rows)) == sorted(map(str, before))


@pytest.mark.parametrize("name", ["nvme", pytest.param("igb", marks=pytest.mark.full)])
@pytest.mark.rule("RST-12")
@pytest.mark.negative_control("RST-12")
@pytest.mark.usefixtures("follows")
def test_bars_of_a_sleeping_function_are_not_mapped(pair: Bare, name: str) -> None:
    """In D3 nothing of a function is mapped; awake again, all that was mapped before."""
    before = pair.rows(name)
    with must_fail():
        check_unmapped(before)

    put(pair, name, D3)
    check_unmapped(pair.rows(name))
    with must_fail():
        check_mapped(pair.rows(name), before)

    put(pair, name, D0)
    check_mapped(pair.rows(name), before)


@pytest.mark.full
@pytest.mark.rule("RST-12")
@pytest.mark.usefixtures("follows")
def test_a_sibling_stays_mapped(pair: Bare) -> None:
    """That one function sleeps does not touch the map of another."""
    before = pair.rows("igb")

    put(pair, "nvme", D3)

    check_mapped(pair.rows("igb"), before)


def transitions(machine: Bare, state: int) -> list[str]:
    """Put the nvme into *state*; return what QEMU traced of that."""
    with machine.machine.tracing("pci_pm_*") as window:
        put(machine, "nvme", state)
    return [f"{event.name}: {event.arguments}" for event in window.events]


def check_traced(found: list[str], event: str, words: str) -> None:
    """One event was traced, of that name, with these words."""
    assert len(found) == 1 and found[0].startswith(f"{event}: ") and words in found[0], found


@pytest.mark.full
@pytest.mark.rule("RST-12")
@pytest.mark.negative_control("RST-12")
@pytest.mark.usefixtures("follows")
def test_a_transition_that_is_offered_is_traced(pair: Bare) -> None:
    """D0 to D3 is traced as a transition, and as no bad one."""
    found = transitions(pair, D3)

    check_traced(found, "pci_pm_transition", "D0->D3")
    with must_fail():
        check_traced(found, "pci_pm_bad_transition", "D0->D3")


@pytest.mark.full
@pytest.mark.rule("RST-12")
@pytest.mark.negative_control("RST-12")
@pytest.mark.usefixtures("follows")
def test_a_transition_that_is_not_offered_is_traced(pair: Bare) -> None:
    """D1, which an nvme does not have, is a bad transition, and changes no map."""
    before = pair.rows("nvme")

    found = transitions(pair, D1)

    check_traced(found, "pci_pm_bad_transition", "D0->D1")
    check_mapped(pair.rows("nvme"), before)
    with must_fail():
        check_traced(found, "pci_pm_transition", "D0->D1")


@pytest.mark.full
@pytest.mark.rule("RST-13")
@pytest.mark.usefixtures("does_not_follow")
def test_bars_of_a_sleeping_function_stay_mapped(pair: Bare) -> None:
    """Before QEMU 10.0 a function that sleeps keeps its ranges in the map."""
    before = pair.rows("nvme")

    put(pair, "nvme", D3)

    check_mapped(pair.rows("nvme"), before)


@pytest.mark.full
@pytest.mark.negative_control("RST-13")
def test_a_map_that_follows_is_noticed(pair: Bare) -> None:
    """With decoding off nothing stays mapped, in any version."""
    before = pair.rows("nvme")

    pair.registers(SLOTS["nvme"]).write(COMMAND, 0)

    with must_fail():
        check_mapped(pair.rows("nvme"), before)
