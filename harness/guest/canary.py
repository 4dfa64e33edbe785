"""A page of memory that must not change: the bystander of DMA tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from harness.errors import GuestError
from harness.guest.system import System, parse_pairs
from harness.guest.transport import Conversation


@dataclass(slots=True)
class Canary:
    """A locked page of a system, filled with a known value.

    ``address`` is its physical address there.
    """

    address: int
    _talk: Conversation

    def look(self) -> dict[str, str]:
        """Return what the page holds now: ``intact=yes``, or where it first differs."""
        self._talk.send("check")
        return parse_pairs(self._talk.receive())

    def read(self, offset: int, count: int) -> bytes:
        """Return *count* bytes of the page."""
        self._talk.send(f"dump {offset:#x} {count}")
        return bytes.fromhex(parse_pairs(self._talk.receive())["data"])

    @property
    def intact(self) -> bool:
        """Say whether no byte has changed since it was filled.

        :raise GuestError: the kernel moved the page meanwhile, so the answer means nothing.
        """
        said = self.look()
        if said.get("moved") == "yes":
            raise GuestError("the kernel moved the bystander page; its address is stale")
        return said.get("intact") == "yes"


@contextlib.contextmanager
def canary(system: System, *, above: int = 0, value: int = 0x5A) -> Iterator[Canary]:
    """Hold a page on *system* while inside.

    :param above: the page lies at or above this physical address.
    """
    talk = system.converse("canary", "hold", "--above", above, "--value", value)
    try:
        first = parse_pairs(talk.receive())
        while "phys" not in first:
            first |= parse_pairs(talk.receive())
        ready = talk.receive()
        if "ready=yes" not in ready:
            raise GuestError("the bystander page is not ready", seen=ready)
        yield Canary(int(first["phys"], 16), talk)
    finally:
        talk.close()
