"""Vectors that a device sends, counted where they arrive: in the host, in QEMU, in the guest."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from harness.guest.network_card import NetworkCard
from harness.lab.nested import Nested
from harness.parse.trace_log import TraceEvent
from harness.testing import must_fail
from suites.interrupts.conftest import Listening

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("kvm")]

COUNT = 20
"""Interrupts that are raised, one after the other."""
FEW = COUNT // 2
"""More than a driver raises for itself in that time."""
BY_QEMU, ENABLED = "vfio_msi_interrupt", "vfio_msi_enable"

each_way = pytest.mark.parametrize("way", ["irqfd", "qemu"], indirect=True)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was counted while a device interrupted."""

    guest: Counter[int | None]
    """In the guest, by vector."""
    host: Counter[int | None]
    """In the host, by vector: what vfio passed on."""
    events: tuple[TraceEvent, ...]
    """In QEMU, of what went through it."""


def seen(listening: Listening, act: Callable[[], None]) -> Seen:
    """Count while *act* lets the card interrupt."""
    guest, host = listening.card.system, listening.nested.host
    with listening.nested.machine.tracing(BY_QEMU) as window:
        before = guest.interrupts(), host.interrupts()
        act()
        arrived = listening.card.arrived(guest.interrupts().since(before[0]))
    passed_on: Counter[int | None] = Counter()
    for row in (
        host.interrupts().since(before[1]).containing(f"]({listening.assigned.function.bdf})")
    ):
        passed_on[row.hardware] += row.total
    return Seen(arrived, passed_on, window.events)


def raised(listening: Listening, vector: int) -> Seen:
    """Let the card raise one vector of MSI-X."""
    return seen(listening, lambda: listening.card.raise_vector(vector, COUNT))


def check_arrives(found: Seen, vector: int) -> None:
    """Each came, at this vector, in the host and in the guest; others were all but silent."""
    for where, counts in (("host", found.host), ("guest", found.guest)):
        others = {other: n for other, n in counts.items() if other != vector and n > FEW}
        assert counts[vector] >= COUNT, f"{where}: {counts[vector]} of {COUNT}; all {counts}"
        assert not others, f"{where}: others came too: {others}"


VECTORS = [("e1000e", 0), ("e1000e", 1), ("igb", 0), ("igb", 1)]


@each_way
@pytest.mark.parametrize(("card", "vector"), VECTORS, indirect=["card"])
@pytest.mark.rule("INT-17")
def test_vector_arrives_as_itself(card: Listening, vector: int) -> None:
    """A vector of MSI-X arrives in the guest by its own number, each time it is sent."""
    check_arrives(raised(card, vector), vector)


@pytest.mark.parametrize("way", ["irqfd"], indirect=True)
@pytest.mark.parametrize("card", ["e1000e"], indirect=True)
@pytest.mark.negative_control("INT-17")
def test_another_vector_is_noticed(card: Listening) -> None:
    """The vector beside it fails the check, and so does one that arrived half the time."""
    found = raised(card, 0)
    half: Counter[int | None] = Counter({0: COUNT // 2})

    with must_fail():
        check_arrives(found, 1)
    with must_fail():
        check_arrives(replace(found, guest=half), 0)


# -- past QEMU, or through it -----------------------------------------------------------------


def check_past_qemu(found: Seen) -> None:
    """They came, and QEMU touched none."""
    assert found.guest.total() >= COUNT, found.guest
    assert not found.events, f"{len(found.events)} went through QEMU: {found.events[:2]}"


def check_through_qemu(found: Seen, vector: int) -> None:
    """They came, and QEMU took each of them in its hands."""
    held = sum(event.fields.get("vector") == vector for event in found.events)
    assert held >= found.guest[vector] >= COUNT, f"{held} of {found.guest} went through QEMU"


by_irqfd = pytest.mark.parametrize("way", ["irqfd"], indirect=True)
by_qemu = pytest.mark.parametrize("way", ["qemu"], indirect=True)


@by_irqfd
@pytest.mark.parametrize("card", ["e1000e", "igb"], indirect=True)
@pytest.mark.rule("INT-02")
@pytest.mark.negative_control("INT-03")
def test_vectors_pass_qemu_by(card: Listening) -> None:
    """By irqfd QEMU sees no MSI-X of the device."""
    found = raised(card, 0)

    check_past_qemu(found)
    with must_fail():
        check_through_qemu(found, 0)


@by_qemu
@pytest.mark.parametrize("card", ["e1000e", "igb"], indirect=True)
@pytest.mark.rule("INT-03")
@pytest.mark.negative_control("INT-02")
def test_vectors_go_through_qemu(card: Listening) -> None:
    """With x-no-kvm-msix QEMU sees each MSI-X of the device."""
    found = raised(card, 0)

    check_through_qemu(found, 0)
    with must_fail():
        check_past_qemu(found)


def check_enabled(events: tuple[TraceEvent, ...], vectors: int) -> None:
    """QEMU enabled so many vectors of MSI, and the driver asked for them once."""
    assert [event.fields.get("vectors") for event in events] == [vectors], events


@by_irqfd
@pytest.mark.rule("INT-05")
@pytest.mark.negative_control("INT-05")
def test_msi_is_enabled_with_its_count(card_guest: Nested) -> None:
    """A driver of the guest that takes MSI gives vfio_msi_enable with one vector."""
    assigned = card_guest.assigned["e1000e"]
    card = NetworkCard(assigned.os, assigned.bdf, "e1000e")

    with card_guest.machine.tracing(ENABLED) as window, card.by_msi():
        pass

    check_enabled(window.events, 1)
    with must_fail():
        check_enabled(window.events, 2)
