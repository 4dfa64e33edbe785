"""What is odd about a host's AP queues, or about a plan: each with what to do next."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from harness.model.ap.hardware import Response
from harness.model.ap.id import Apqn
from harness.model.ap.kernel import DEFAULT_DRIVER, VFIO_AP, ApKernel, Draft, Mdev
from harness.model.ap.mask import ApMask
from harness.model.ap.matrix import ApMatrix
from harness.model.ap.plan import Free, Plan
from harness.model.ap.vfio import filter_matrix


class Weight(enum.IntEnum):
    """How much a remark matters."""

    NOTE = 0
    """As it may be meant."""
    WARNING = 1
    """A guest does not get what it was assigned."""
    ERROR = 2
    """A kernel that works does not allow it."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about a queue, a mediated device or the masks."""

    weight: Weight
    where: str
    what: str
    next: str = ""


def remarks_on(state: ApKernel) -> tuple[Remark, ...]:
    """Return what is odd about a host, what matters most first."""
    found = [*_queues(state), *_free(state)]
    for mdev in reversed(state.mdevs):
        found += _mdev(state, mdev)
    return tuple(sorted(found, key=lambda remark: -remark.weight))


def remarks_on_plan(plan: Plan) -> tuple[Remark, ...]:
    """Return what a plan costs the host, and what its guests do not get."""
    found = []
    taken = [apqn for apqn in plan.end.queues if _left_host(plan, apqn)]
    wished = {apqn for guest in plan.guests for apqn in guest.matrix}
    spare = [str(apqn) for apqn in taken if apqn not in wished]
    if spare:
        found.append(
            Remark(
                Weight.NOTE,
                "host",
                f"loses {_list(spare)} too, which no guest gets",
                _tighter(plan.free),
            )
        )
    for guest in plan.guests:
        if not len(guest.matrix):
            missing = "a domain" if guest.matrix.adapters else "an adapter"
            found.append(Remark(Weight.WARNING, guest.name, f"has no queue: give it {missing}"))
    mdevs = {guest.uuid: guest.name for guest in plan.guests}
    for mdev in plan.end.mdevs:
        name = mdevs.get(mdev.uuid)
        if name is not None and len(mdev.assigned):
            found += [
                Remark(one.weight, name, one.what, one.next) for one in _mdev(plan.end, mdev)
            ]
    return tuple(sorted(found, key=lambda remark: -remark.weight))


def _left_host(plan: Plan, apqn: Apqn) -> bool:
    before = plan.start.queues.get(apqn)
    after = plan.end.queues[apqn]
    had = before is not None and before.driver == DEFAULT_DRIVER
    return had and after.driver != DEFAULT_DRIVER


def _tighter(free: Free) -> str:
    others = {
        Free.ADAPTERS: "--free domains, or --free queues on Linux 6.19 and later",
        Free.DOMAINS: "--free adapters, or --free queues on Linux 6.19 and later",
    }
    return f"compare {others[free]}" if free in others else ""


def _queues(state: ApKernel) -> Iterator[Remark]:
    for apqn, queue in state.queues.items():
        wanted = DEFAULT_DRIVER if state.owned_by_default(apqn) else VFIO_AP
        wanted = queue.override or wanted
        if queue.driver is None:
            load = "" if wanted in state.drivers else f"modprobe {wanted}, or "
            bind = f"echo {apqn} > /sys/bus/ap/drivers/{wanted}/bind"
            yield Remark(Weight.WARNING, str(apqn), "has no driver", load + bind)
        elif queue.driver != wanted:
            yield Remark(
                Weight.ERROR,
                str(apqn),
                f"is with {queue.driver}, but belongs to {wanted}",
                f"unbind it and bind it to {wanted}",
            )
        if state.mdev_of(apqn) is not None and state.owned_by_default(apqn):
            yield Remark(Weight.ERROR, str(apqn), "is assigned to an mdev and left to the host")


def _free(state: ApKernel) -> Iterator[Remark]:
    idle = [
        str(apqn)
        for apqn, queue in state.queues.items()
        if queue.driver == VFIO_AP and state.mdev_of(apqn) is None
    ]
    if idle:
        yield Remark(
            Weight.NOTE, "host", f"{_list(idle)} left the host, but no mdev has them",
            "assign them, or give them back",
        )  # fmt: skip


def _mdev(state: ApKernel, mdev: Mdev) -> Iterator[Remark]:
    where, assigned = mdev.uuid, mdev.assigned
    for other in state.mdevs:
        if other.uuid < mdev.uuid and len(shared := assigned.shared(other.assigned)):
            yield Remark(
                Weight.ERROR, where, f"shares {_list([str(one) for one in shared])} with "
                f"{other.uuid}",
            )  # fmt: skip
    if not len(assigned) and (assigned.adapters or assigned.domains):
        missing = "domains" if assigned.adapters else "adapters"
        yield Remark(Weight.WARNING, where, f"has no {missing}, so no queue")
    host = state.configuration
    for what, ids in (
        ("adapter", assigned.adapters - host.adapters),
        ("domain", assigned.domains - host.domains),
        ("control domain", assigned.control_domains - host.control_domains),
    ):
        if ids:
            yield Remark(
                Weight.NOTE, where, f"{what} {_ids(ids)}: not the host's; plugged when it comes"
            )
    yield from _filtered(state, mdev)
    if without := assigned.domains - assigned.control_domains:
        yield Remark(
            Weight.NOTE, where, f"cannot control its domains {_ids(without)}",
            "assign them as control domains too, if the guest manages their keys",
        )  # fmt: skip


def _filtered(state: ApKernel, mdev: Mdev) -> Iterator[Remark]:
    """Say why adapters the host has are not in guest_matrix."""
    if state.vfio_configuration is None:
        return
    draft = Draft(state)
    filter_matrix(draft, mdev.uuid)
    fresh = draft.state.mdev(mdev.uuid)
    host = state.configuration
    missing = (mdev.assigned.adapters & host.adapters) - mdev.shadow.adapters
    for adapter in missing:
        domains = mdev.assigned.domains & host.domains
        queues = ApMatrix(ApMask.of([adapter]), domains)
        if fresh is not None and adapter in fresh.shadow.adapters:
            yield Remark(
                Weight.WARNING,
                mdev.uuid,
                f"adapter {adapter:02x} is not passed on, though nothing is in its way any more",
                "unassign and assign one of its domains: only that filters anew",
            )
            continue
        culprits = [apqn for apqn in queues if apqn not in mdev.linked]
        odd = [
            f"{apqn} (reset ended with {state.queues[apqn].reset:#04x})"
            for apqn in queues
            if apqn in mdev.linked and not state.queues[apqn].passable
        ]
        names = [f"{apqn} is not bound to vfio_ap" for apqn in culprits] + odd
        yield Remark(
            Weight.WARNING,
            mdev.uuid,
            f"adapter {adapter:02x} is not passed on: {_list(names)}",
            "bind its queues to vfio_ap: the kernel drops an adapter whole",
        )
    off = [
        apqn
        for apqn in mdev.shadow
        if apqn in state.queues and state.hardware.cards[apqn.adapter].response != Response.NORMAL
    ]
    if off:
        yield Remark(
            Weight.NOTE, mdev.uuid,
            f"{_list([str(one) for one in off])}: deconfigured or checkstopped, and passed on",
        )  # fmt: skip


def _ids(ids: ApMask) -> str:
    return _list([f"{number:#04x}" for number in ids])


def _list(words: list[str]) -> str:
    shown = ", ".join(words[:6])
    return shown if len(words) <= 6 else f"{shown} and {len(words) - 6} more"
