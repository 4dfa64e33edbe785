"""Guests whose devices interrupt in one way each: by pin, by message; past QEMU, through it.

=====================  =========================================================================
``way``                past QEMU (``irqfd``) or through it: see `WAYS`
``card_guest``         a guest with two network cards whose interrupts go that way
``pin_guest``          one that knows no MSI, with an e1000e
``intx_guest``         one that knows no MSI, with an nvme, as QEMU does it by default
``card``, ``pin``      a card of the first two, listening while the test lasts
=====================  =========================================================================

The guests with cards have no nvme: it is of no use before its first interrupt came, so a QEMU
that loses interrupts would have no guest, and no test could say why. That without MSI has no
igb: its line is that of the guest's own network card, whose interrupts would be counted too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from harness.guest.network_card import NetworkCard
from harness.host.host import Host
from harness.lab.assigned import Assigned
from harness.lab.nested import Nested
from harness.lab.resident import Properties, Resident
from harness.suite_fixtures import WENT_WRONG
from harness.testing import skip

NO_MSI = "pci=nomsi"
WAYS: Mapping[str, Properties] = {
    "irqfd": {},
    "qemu": {"x-no-kvm-intx": True, "x-no-kvm-msi": True, "x-no-kvm-msix": True},
    "untimed": {"x-no-kvm-intx": True, "x-intx-mmap-timeout-ms": 0},
}
"""Properties of vfio-pci devices, by the way that their interrupts take; the last is for pins."""
CARDS = ("e1000e", "igb")


@dataclass(frozen=True, slots=True)
class Listening:
    """A network card whose driver listens."""

    nested: Nested
    assigned: Assigned
    card: NetworkCard


@pytest.fixture
def intx_guest(resident: Resident) -> Nested:
    """A guest whose nvme interrupts by its pin, as QEMU does it by default."""
    return resident.guest("intx", devices=["nvme"], append=NO_MSI)


@pytest.fixture
def way(request: pytest.FixtureRequest) -> str:
    """The way that interrupts take: one of `WAYS`."""
    found: str = request.param
    return found


@pytest.fixture
def card_guest(resident: Resident, way: str, request: pytest.FixtureRequest) -> Iterator[Nested]:
    """A guest with the cards, whose interrupts go this way."""
    guest = resident.guest(f"cards-{way}", devices=CARDS, properties=WAYS[way])
    yield guest
    if request.node.stash.get(WENT_WRONG, False):
        resident.end(guest)


@pytest.fixture
def pin_guest(resident: Resident, way: str, request: pytest.FixtureRequest) -> Iterator[Nested]:
    """A guest without MSI that has the e1000e."""
    guest = resident.guest(f"pins-{way}", devices=["e1000e"], properties=WAYS[way], append=NO_MSI)
    yield guest
    if request.node.stash.get(WENT_WRONG, False):
        resident.end(guest)


def listening(guest: Nested, name: str) -> Iterator[Listening]:
    """Have the card *name* of *guest* listen until the test is over."""
    assigned = guest.assigned[name]
    card = NetworkCard(assigned.os, assigned.bdf, name)
    card.up()
    yield Listening(guest, assigned, card)
    card.down()


@pytest.fixture
def card(card_guest: Nested, request: pytest.FixtureRequest) -> Iterator[Listening]:
    """The card of the test, which interrupts by message."""
    yield from listening(card_guest, request.param)


@pytest.fixture
def pin(pin_guest: Nested) -> Iterator[Listening]:
    """The e1000e, which interrupts by its pin."""
    yield from listening(pin_guest, "e1000e")


@pytest.fixture
def resizable(host: Host) -> None:
    """The host's kernel can give a device more vectors than it has."""
    if not host.kernel.has(6, 5):
        skip(f"the host has Linux {host.kernel}", enabled_by="Linux 6.5 or later")
