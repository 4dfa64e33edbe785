"""The table of the documents: a column for each adapter, a row for each domain."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.model.ap.id import Apqn
from harness.model.ap.kernel import ApKernel
from harness.model.ap.plan import Guest, Plan

HOST = "h"
FREE = "-"
CONFLICT = "!"


@dataclass(frozen=True, slots=True)
class ApTable:
    """Who has which queue."""

    adapters: tuple[int, ...]
    domains: tuple[int, ...]
    owners: Mapping[Apqn, tuple[str, ...]]
    """Guests that a queue is wished for; more than one is a conflict."""
    reserved: frozenset[Apqn]
    """Queues that both masks leave to the host."""
    names: tuple[str, ...]
    absent: frozenset[Apqn] = frozenset()
    """Queues that the host does not have."""

    def mark(self, apqn: Apqn) -> str:
        """Return one character for the cell: of a guest, or `CONFLICT`, `HOST`, `FREE`."""
        owners = self.owners.get(apqn, ())
        if len(owners) > 1 or (owners and apqn in self.reserved):
            return CONFLICT
        if owners:
            return self.mark_of(owners[0])
        return HOST if apqn in self.reserved else FREE

    def mark_of(self, name: str) -> str:
        """Return the character of a guest; the 35th and later share one."""
        number = self.names.index(name)
        marks = _marks()
        return marks[min(number, len(marks) - 1)]

    def has(self, mark: str) -> bool:
        """Say whether some cell has *mark*."""
        return any(
            self.mark(Apqn(adapter, domain)) == mark
            for adapter in self.adapters
            for domain in self.domains
        )


def table_of_plan(plan: Plan) -> ApTable:
    """Return the table of what is wished, beside what others have, on the masks as planned."""
    planned = {guest.uuid for guest in plan.guests}
    others = [guest for guest in _guests_of(plan.end) if guest.uuid not in planned]
    return _table((*plan.guests, *others), plan.end)


def table_of_host(state: ApKernel) -> ApTable:
    """Return the table of a host as it is."""
    return _table(_guests_of(state), state)


def _guests_of(state: ApKernel) -> list[Guest]:
    return [Guest(mdev.uuid, mdev.assigned, mdev.uuid) for mdev in reversed(state.mdevs)]


def _table(guests: Sequence[Guest], state: ApKernel) -> ApTable:
    adapters = set(state.hardware.cards) | {
        one for guest in guests for one in guest.matrix.adapters
    }
    domains = set(state.hardware.domains) | {
        one for guest in guests for one in guest.matrix.domains
    }
    owners: dict[Apqn, tuple[str, ...]] = {}
    for guest in guests:
        for apqn in guest.matrix:
            owners[apqn] = (*owners.get(apqn, ()), guest.name)
    cells = [Apqn(adapter, domain) for adapter in sorted(adapters) for domain in sorted(domains)]
    return ApTable(
        adapters=tuple(sorted(adapters)),
        domains=tuple(sorted(domains)),
        owners=owners,
        reserved=frozenset(apqn for apqn in cells if state.owned_by_default(apqn)),
        names=tuple(guest.name for guest in guests),
        absent=frozenset(apqn for apqn in cells if apqn not in state.queues),
    )


def _marks() -> str:
    return "123456789" + string.ascii_lowercase.replace(HOST, "")
