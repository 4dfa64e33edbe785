"""A plan: who gets which adapters and domains, what is written for it, what the kernel answers.

The plan is carried out on the model of the host, write by write. What the kernel would refuse
is kept with its errno and the plan goes on, so that all conflicts are seen at once.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.model.ap.errno import Errno
from harness.model.ap.hardware import ApHardware, Card
from harness.model.ap.kernel import DEFAULT_DRIVER, VFIO_AP, ApKernel, Traits
from harness.model.ap.mask import ApMask
from harness.model.ap.matrix import ApMatrix
from harness.model.ap.operation import (
    LoadDriver,
    Operation,
    Write,
    assign,
    bind,
    booted,
    create_mdev,
    override,
    set_apmask,
    set_aqmask,
    unbind,
)

_NAMESPACE = uuid.UUID("5b0f5e5a-6d0b-5d6f-8f3e-0b6a1c9f4e21")


class Free(enum.StrEnum):
    """How queues are taken from the host's own drivers."""

    ADAPTERS = "adapters"
    """Their adapters leave apmask: the host loses all domains of these adapters."""
    DOMAINS = "domains"
    """Their domains leave aqmask: the host loses these domains of all adapters."""
    QUEUES = "queues"
    """Each gets a driver override (6.19): the host loses nothing else."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest and what it is to have."""

    name: str
    matrix: ApMatrix
    uuid: str

    @classmethod
    def of(cls, name: str, matrix: ApMatrix, identifier: str = "") -> Guest:
        """Return the guest; without *identifier* its UUID follows from its name."""
        return cls(name, matrix, identifier or str(uuid.uuid5(_NAMESPACE, name)))


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done, and what came of it."""

    operation: Operation
    errno: Errno | None
    log: tuple[str, ...]
    """Lines of the kernel log, mdevs called by the names of their guests."""
    guest: str = ""
    """Empty: it is for the host."""
    why: str = ""
    """Of a refusal: which queues, and whose they are."""

    @property
    def command(self) -> str:
        """Return the shell command that does it."""
        if self.operation.write is None:
            driver = self.operation.driver if isinstance(self.operation, LoadDriver) else ""
            return f"modprobe {driver}"
        path, text = self.operation.write
        return f"echo {text.strip()} > {path}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, in order, and the host before and after it."""

    guests: tuple[Guest, ...]
    free: Free
    start: ApKernel
    end: ApKernel
    steps: tuple[Step, ...]

    @property
    def conflicts(self) -> tuple[Step, ...]:
        """The steps that the kernel refuses."""
        return tuple(step for step in self.steps if step.errno is not None)

    def steps_of(self, guest: str) -> tuple[Step, ...]:
        """Return the steps for a guest; with an empty name those for the host."""
        return tuple(step for step in self.steps if step.guest == guest)


def assumed_host(guests: Sequence[Guest], traits: Traits) -> ApKernel:
    """Return a host of which nothing is known: it has all that is wished for, and no more."""
    wished = union(guests)
    hardware = ApHardware(
        cards={adapter: Card() for adapter in wished.adapters},
        domains=wished.domains,
        control_domains=wished.control_domains,
    )
    return booted(hardware, traits, drivers=(DEFAULT_DRIVER,))


def union(guests: Sequence[Guest]) -> ApMatrix:
    """Return the adapters, domains and control domains that any guest wishes for."""
    adapters = domains = control = ApMask()
    for guest in guests:
        adapters |= guest.matrix.adapters
        domains |= guest.matrix.domains
        control |= guest.matrix.control_domains
    return ApMatrix(adapters, domains, control)


def make_plan(guests: Sequence[Guest], start: ApKernel, free: Free) -> Plan:
    """Plan for *guests* on the host *start*: free the queues, make the mdevs, fill them."""
    state, steps = start, []
    names = {guest.uuid: guest.name for guest in guests}

    def do(operation: Operation, guest: Guest | None = None) -> None:
        nonlocal state
        outcome = operation.apply(state)
        log = tuple(_named(line, names) for line in outcome.log)
        why = "" if outcome.errno is None else _reason(outcome.errno, state, operation, guest, log)
        steps.append(Step(operation, outcome.errno, log, guest.name if guest else "", why))
        state = outcome.state

    if VFIO_AP not in start.drivers:
        do(LoadDriver(VFIO_AP))
    for operation in _freeing(guests, start, free):
        do(operation)
    for guest in guests:
        for operation in _filling(guest, start):
            do(operation, guest)
    return Plan(tuple(guests), free, start, state, tuple(steps))


def _freeing(guests: Sequence[Guest], start: ApKernel, free: Free) -> list[Operation]:
    matrices = [guest.matrix for guest in guests if len(guest.matrix)]
    if free is Free.QUEUES:
        queues = sorted({apqn for matrix in matrices for apqn in matrix if apqn in start.queues})
        moves: list[Operation] = []
        for apqn in queues:
            driver = start.queues[apqn].driver
            if driver == VFIO_AP:
                continue
            moves.append(override(apqn, f"{VFIO_AP}\n"))
            moves += [unbind(driver, apqn)] if driver is not None else []
            moves.append(bind(VFIO_AP, apqn))
        return moves
    # What the other mask, or an override, has freed already costs the host nothing more.
    held = [apqn for matrix in matrices for apqn in matrix if start.owned_by_default(apqn)]
    if free is Free.ADAPTERS:
        old, write = start.apmask, set_apmask
        new = old - ApMask.of(apqn.adapter for apqn in held)
    else:
        old, write = start.aqmask, set_aqmask
        new = old - ApMask.of(apqn.domain for apqn in held)
    # An empty text would clear the whole mask.
    return [write(f"{old.changes_to(new)}\n")] if new != old else []


def _filling(guest: Guest, start: ApKernel) -> list[Operation]:
    """Return the writes that make, or change, the mdev of *guest*: adapters first."""
    known = start.mdev(guest.uuid)
    old, new = ApMatrix() if known is None else known.assigned, guest.matrix
    writes: list[Operation] = [] if known is not None else [create_mdev(f"{guest.uuid}\n")]
    for what, before, after in (
        ("adapter", old.adapters, new.adapters),
        ("domain", old.domains, new.domains),
        ("control_domain", old.control_domains, new.control_domains),
    ):
        for number in before - after:
            writes.append(assign(guest.uuid, f"unassign_{what}", f"{number:#04x}\n"))
    for what, before, after in (
        ("adapter", old.adapters, new.adapters),
        ("domain", old.domains, new.domains),
        ("control_domain", old.control_domains, new.control_domains),
    ):
        for number in after - before:
            writes.append(assign(guest.uuid, f"assign_{what}", f"{number:#04x}\n"))
    return writes


def _named(line: str, names: dict[str, str]) -> str:
    for identifier, name in names.items():
        line = line.replace(identifier, f"{identifier} ({name})")
    return line


def _reason(
    errno: Errno, state: ApKernel, operation: Operation, guest: Guest | None, log: tuple[str, ...]
) -> str:
    """Say which queues are in the way, and of whom."""
    if errno is Errno.ENODEV and guest is None:
        return "no driver of the other pool may have it"
    if errno is Errno.ENODEV:
        highest = state.hardware
        return (
            f"the highest adapter is {highest.max_adapter:#04x}, "
            f"the highest domain {highest.max_domain:#04x}"
        )
    if errno is Errno.EADDRNOTAVAIL and guest is not None:
        wanted = _attempted(state, operation, guest)
        queues = [str(apqn) for apqn in wanted if state.owned_by_default(apqn)]
        return f"{_few(queues)} would be in use by the drivers of the host"
    if errno is Errno.EINVAL and state.overrides:
        return "masks cannot be changed while a queue has a driver override"
    if errno is Errno.EINVAL and state.masks_in_use:
        return "overrides cannot be set while a mask is not all ones"
    if errno is Errno.ENOENT and isinstance(operation, Write):
        return f"this kernel has no {operation.path.rpartition('/')[2]}"
    return _few(list(log)) if log else errno.message


def _attempted(state: ApKernel, operation: Operation, guest: Guest) -> ApMatrix:
    """Return the matrix that *operation* was to make."""
    mdev, write = state.mdev(guest.uuid), operation.write
    if mdev is None or write is None:
        return guest.matrix
    number, matrix = int(write[1], 0), mdev.assigned
    if write[0].endswith("/assign_adapter"):
        return replace(matrix, adapters=matrix.adapters.with_bit(number))
    return replace(matrix, domains=matrix.domains.with_bit(number))


def _few(words: list[str]) -> str:
    shown = ", ".join(words[:4])
    return shown if len(words) <= 4 else f"{shown} and {len(words) - 4} more"
