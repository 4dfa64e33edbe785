"""Random sequences of operations on an AP host, each with what the model says must come of it.

Pure: the model goes through a sequence before the host does, so that what would step on a
known defect of the kernel, or would wait for somebody, is left out, and everything between two
changes of the machine can be sent to the host in one trip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from harness.ap.matrix_device import UUIDS
from harness.model.ap import operation as op
from harness.model.ap.hardware import Card
from harness.model.ap.kernel import DEFAULT_DRIVER, FREED, VFIO_AP, ApKernel, Mdev, Outcome
from harness.model.ap.mask import ApMask
from harness.model.ap.vfio import LOCK_AT_NULL

DEVICES = UUIDS[:3]
"""Matrix devices of a sequence."""
ADAPTERS = (4, 5, 6, 9, 0, 0xFF)
DOMAINS = (4, 0x47, 0xAB, 0xFF, 0x20)
_OFTEN = {5: 6, 6: 3, 4: 4, 0x47: 3}
"""Ids that are taken more often, so that devices meet."""
STRANGE = 0x42
"""A response code that the kernel does not know."""
_BAD_NUMBERS = ("", "zz", "-1", "0x", "08", "5 6", "256", "0x10000000000000000", "0x100", "1b")
_BAD_MASKS = ("+256", "+", "+5, -6", "zz", "0x" + 65 * "f", "5,6", "-9-5")
_TRIES = 50
_HARMLESS = (LOCK_AT_NULL,)
"""Defects that do not change what is seen."""

Maker = Callable[[Random, ApKernel], op.Operation | None]


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, and what must come of it."""

    operation: op.Operation
    outcome: Outcome

    def __str__(self) -> str:
        write = self.operation.write
        done = f"{write[1].rstrip()!r} > {write[0]}" if write else str(self.operation)
        return f"{done}  ({self.outcome.errno or 'ok'})"


def sample(state: ApKernel, random: Random, length: int) -> list[Step]:
    """Return *length* steps from *state* on, and those that leave no matrix device behind."""
    steps: list[Step] = []
    for at in range(length):
        # Two devices from the start: most of what there is to say is about two.
        begin = [op.create_mdev(f"{DEVICES[at]}\n")] if at < 2 else None
        for operation in begin or _some(state, random):
            steps.append(Step(operation, operation.apply(state)))
            state = steps[-1].outcome.state
    return [*steps, *clean(state)]


def clean(state: ApKernel) -> list[Step]:
    """Return steps after which there is no matrix device, no fault and no foreign pointer."""
    steps: list[Step] = []
    for operation in _cleaning(state):
        outcome = operation.apply(steps[-1].outcome.state if steps else state)
        steps.append(Step(operation, outcome))
    return steps


def replay(state: ApKernel, operations: Sequence[op.Operation]) -> list[Step] | None:
    """Return the steps of *operations* from *state* on; None if one must not be done."""
    steps: list[Step] = []
    for operation in operations:
        outcome = operation.apply(state)
        if not is_harmless(outcome):
            return None
        steps.append(Step(operation, outcome))
        state = outcome.state
    return [*steps, *clean(state)]


def is_harmless(outcome: Outcome) -> bool:
    """Say whether a host survives it and answers at once."""
    known = all(hazard.startswith(_HARMLESS) for hazard in outcome.hazards)
    dangling = any(queue.owner == FREED for queue in outcome.state.queues.values())
    return known and not outcome.blocks and not dangling


def _some(state: ApKernel, random: Random) -> list[op.Operation]:
    """Return an operation, with a scan behind it if it changes the machine."""
    makers, weights = zip(*_MAKERS, strict=True)
    for _ in range(_TRIES):
        (maker,) = random.choices(makers, weights)
        operation = maker(random, state)
        if operation is None:
            continue
        found = [operation]
        outcome = operation.apply(state)
        if outcome.state.hardware != state.hardware:
            found.append(op.scan())
            outcome = op.scan().apply(outcome.state)
        if is_harmless(outcome):
            return found
    return [op.scan()]


def _cleaning(state: ApKernel) -> Iterator[op.Operation]:
    for mdev in state.mdevs:
        if mdev.vm is not None:
            yield op.CloseDevice(mdev.uuid)
    for apqn in sorted(state.hardware.resets):
        yield op.SetReset(apqn, None)
    for apqn, queue in state.queues.items():
        # What points to a device that does not have it, or has a bad reset, is made anew.
        linked = any(apqn in mdev.linked for mdev in state.mdevs)
        if queue.driver == VFIO_AP and ((queue.owner and not linked) or not queue.passable):
            yield op.unbind(VFIO_AP, apqn)
            yield op.bind(VFIO_AP, apqn)
    for mdev in state.mdevs:
        yield op.remove_mdev(mdev.uuid)
    for apqn, queue in state.queues.items():
        if queue.override:
            yield op.override(apqn, "\n")
    for apqn, queue in state.queues.items():
        if queue.driver is None:
            yield op.bind(DEFAULT_DRIVER if state.reserved(apqn) else VFIO_AP, apqn)


# -- operations -------------------------------------------------------------------------------


def _number(random: Random, ids: Sequence[int]) -> str:
    if random.random() < 0.06:
        return random.choice(_BAD_NUMBERS) + "\n"
    written = random.choice(("{:d}", "{:#x}", "{:#06x}", "+{:d}"))
    (number,) = random.choices(ids, [_OFTEN.get(one, 1) for one in ids])
    return written.format(number) + "\n"


def _some_mdev(random: Random, state: ApKernel) -> Mdev | None:
    return random.choice(state.mdevs) if state.mdevs else None


def _create(random: Random, state: ApKernel) -> op.Operation:
    del state
    return op.create_mdev(random.choice([*DEVICES, *DEVICES, *DEVICES, "nobody"]) + "\n")


def _remove(random: Random, state: ApKernel) -> op.Operation | None:
    mdev = _some_mdev(random, state)
    return op.remove_mdev(mdev.uuid, random.choice(["1\n", "1\n", "0\n"])) if mdev else None


def _assign(random: Random, state: ApKernel) -> op.Operation | None:
    mdev = _some_mdev(random, state)
    if mdev is None:
        return None
    what = random.choice(["adapter", "adapter", "domain", "domain", "control_domain"])
    verb = random.choice(["assign", "assign", "assign", "unassign"])
    ids = ADAPTERS if what == "adapter" else DOMAINS
    return op.assign(mdev.uuid, f"{verb}_{what}", _number(random, ids))


def _configure(random: Random, state: ApKernel) -> op.Operation | None:
    mdev = _some_mdev(random, state)
    if mdev is None:
        return None
    masks = [_mask_text(random, ids) for ids in (ADAPTERS, DOMAINS, DOMAINS)]
    return op.configure(mdev.uuid, ",".join(masks) + "\n")


def _mask_text(random: Random, ids: Sequence[int]) -> str:
    mask = str(ApMask.of(random.sample(ids, random.randint(0, 3))))
    return mask if random.random() < 0.7 else mask.rstrip("0")


def _bus_mask(random: Random, state: ApKernel) -> op.Operation:
    del state
    write, ids = random.choice([(op.set_apmask, ADAPTERS), (op.set_aqmask, DOMAINS)])
    if random.random() < 0.2:
        return write(random.choice(_BAD_MASKS) + "\n")
    changes = [
        f"{random.choice('+--')}{number:#x}" for number in random.sample(ids, random.randint(1, 2))
    ]
    return write(",".join(changes) + "\n")


def _bind(random: Random, state: ApKernel) -> op.Operation | None:
    if not state.queues:
        return None
    apqn = random.choice(list(state.queues))
    change = random.choice([op.bind, op.unbind])
    return change(random.choice([VFIO_AP, VFIO_AP, DEFAULT_DRIVER]), apqn)


def _machine(random: Random, state: ApKernel) -> op.Operation:
    kind = random.randrange(5)
    adapter = random.choice((5, 6, 9))
    if kind == 0 and adapter in state.hardware.cards:
        return op.UnplugCard(adapter)
    if kind <= 1:
        return op.PlugCard(adapter, Card(random.choice((13, 13, 12, 9))))
    if kind == 2:
        was = state.hardware.cards.get(adapter, Card())
        return op.PlugCard(adapter, Card(was.hwtype, was.mode, random.random() < 0.5))
    domains = ApMask.of([4, *random.sample(DOMAINS, random.randint(1, 4))])
    return op.SetDomains(domains) if kind == 3 else op.SetControlDomains(domains)


def _reset_code(random: Random, state: ApKernel) -> op.Operation | None:
    if not state.queues:
        return None
    return op.SetReset(random.choice(list(state.queues)), random.choice([STRANGE, None]))


def _open(random: Random, state: ApKernel) -> op.Operation | None:
    mdev = _some_mdev(random, state)
    if mdev is None:
        return None
    return op.CloseDevice(mdev.uuid) if mdev.vm else op.OpenDevice(mdev.uuid, f"vm of {mdev.uuid}")


def _reset_device(random: Random, state: ApKernel) -> op.Operation | None:
    mdev = _some_mdev(random, state)
    return op.ResetDevice(mdev.uuid) if mdev is not None and mdev.vm else None


def _scan(random: Random, state: ApKernel) -> op.Operation:
    del random, state
    return op.scan()


def _override(random: Random, state: ApKernel) -> op.Operation | None:
    if not state.traits.driver_override or not state.queues:
        return None
    apqn = random.choice(list(state.queues))
    return op.override(apqn, random.choice([VFIO_AP, DEFAULT_DRIVER, ""]) + "\n")


_MAKERS: tuple[tuple[Maker, float], ...] = (
    (_assign, 50),
    (_create, 5),
    (_configure, 8),
    (_remove, 4),
    (_bus_mask, 3),
    (_bind, 4),
    (_machine, 1),
    (_reset_code, 1.5),
    (_open, 1.5),
    (_reset_device, 1),
    (_scan, 0.3),
    (_override, 2),
)
"""What is done, and how often: much that is quick, some of what makes the bus probe again."""
