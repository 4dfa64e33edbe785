"""Vectors of an nvme that its guest masks, while the disk has something to say."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import pytest

from harness.guest.block import BlockDevice
from harness.guest.msix import Msix
from harness.lab.assigned import Assigned
from harness.lab.hosts import DISK_SEED
from harness.testing import must_fail, only
from harness.wait import wait_until

pytestmark = [pytest.mark.full]

QUEUE = 1
"""Vector of the one queue for data that a guest with one processor has."""
SIZE = 4096
A_WHILE = "0.3"
"""Seconds in which what was sent reaches whoever does not mask it."""

MASKS: Mapping[str, Callable[[Msix], AbstractContextManager[None]]] = {
    "vector": lambda msix: msix.vector_masked(QUEUE),
    "function": lambda msix: msix.function_masked(),
}


@dataclass(frozen=True, slots=True)
class Looked:
    """The guest's interrupts since the start, and its pending bits, at one moment."""

    interrupts: int
    pending: frozenset[int]


@dataclass(frozen=True, slots=True)
class Held:
    """What was seen while the vector was masked, and when it was not any more."""

    masked: Looked
    after: Looked
    correct: bool
    """The bytes that were read are those that the lab put there."""


def read_while(nvme: Assigned, masked: AbstractContextManager[None], reads: int) -> Held:
    """Let the guest ask for bytes of its disk, its vector masked until they were there."""
    guest, bdf = nvme.os, nvme.function.bdf
    msix, disk = Msix(guest, nvme.bdf, nvme.msix), BlockDevice(guest, "/dev/nvme0n1")
    before, sent = guest.interrupts(), nvme.host.interrupts()

    def look() -> Looked:
        rows = guest.interrupts().since(before)
        return Looked(rows.named("nvme0q1").total, msix.pending())

    def has_sent() -> bool:
        rows = nvme.host.interrupts().since(sent).containing(f"]({bdf})")
        return any(row.hardware == QUEUE and row.total for row in rows)

    with masked:
        asked = [disk.ask(DISK_SEED, offset=n * SIZE, length=SIZE) for n in range(reads)]
        wait_until("the disk has sent its interrupt", has_sent, timeout=20)
        guest.run(["sleep", A_WHILE])
        during = look()
    correct = [answer() for answer in asked]
    return Held(during, look(), all(correct))


def check_held(held: Held) -> None:
    """Nothing came while it was masked but a pending bit, and one interrupt afterwards."""
    assert held.masked == Looked(0, frozenset({QUEUE})), f"masked: {held.masked}"
    assert held.after == Looked(1, frozenset()), f"afterwards: {held.after}"
    assert held.correct


@only("nvme")
@pytest.mark.parametrize(("mask", "reads"), [("vector", 1), ("vector", 2), ("function", 1)])
@pytest.mark.rule("INT-18")
def test_masked_vector_is_held(assigned: Assigned, mask: str, reads: int) -> None:
    """A masked vector shows as a pending bit, and interrupts once when it is unmasked."""
    msix = Msix(assigned.os, assigned.bdf, assigned.msix)

    check_held(read_while(assigned, MASKS[mask](msix), reads))


@only("nvme")
@pytest.mark.negative_control("INT-18")
def test_vector_that_is_not_masked_is_noticed(assigned: Assigned) -> None:
    """The check fails when nothing was masked."""
    held = read_while(assigned, nullcontext(), 1)

    with must_fail():
        check_held(held)
