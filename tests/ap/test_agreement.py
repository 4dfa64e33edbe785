"""Model against host, where the host is another model: no machine is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

import pytest

from harness.ap.agreement import Agreement, Disagreement
from harness.ap.agreement_plan import Step, is_harmless, replay, sample
from harness.ap.attributes import Answer, Request
from harness.ap.spec import default_hardware
from harness.model.ap import operation as op
from harness.model.ap import sysfs as ap_sysfs
from harness.model.ap.errno import Errno
from harness.model.ap.hardware import ApHardware
from harness.model.ap.kernel import ApKernel, Traits
from harness.model.ap.operation import booted

KERNELS = [Traits.of_version(version) for version in ((6, 12), (6, 19), (7, 2))]
Lie = Callable[[Request, Answer], Answer]


def honest(_: Request, answer: Answer) -> Answer:
    return answer


class ModelHost:
    """Answers as a model does; *lie* may change an answer."""

    def __init__(self, state: ApKernel, lie: Lie = honest) -> None:
        self.state = state
        self.lie = lie

    def batch(self, requests: Sequence[Request]) -> list[Answer]:
        return [self.lie(request, self._answer(request)) for request in requests]

    def links(self, paths: Sequence[str]) -> list[str]:
        known = ap_sysfs.links(self.state)
        return [known.get(path) or "" for path in paths]

    def set_hardware(self, hardware: ApHardware) -> None:
        self.state = replace(self.state, hardware=hardware)

    def open(self, uuid: str) -> str:
        return self._apply(op.OpenDevice(uuid, f"vm of {uuid}"))

    def reset(self, uuid: str) -> str:
        return self._apply(op.ResetDevice(uuid))

    def let_go(self, uuid: str) -> None:
        self._apply(op.CloseDevice(uuid))

    def _answer(self, request: Request) -> Answer:
        if request.text is not None:
            return Answer(self._apply(op.Write(request.path, f"{request.text}\n")))
        text = ap_sysfs.read(self.state, request.path)
        return Answer(str(text)) if isinstance(text, Errno) else Answer("", text.rstrip("\n"))

    def _apply(self, operation: op.Operation) -> str:
        outcome = operation.apply(self.state)
        self.state = outcome.state
        return str(outcome.errno or "")


def begin(traits: Traits = KERNELS[0]) -> ApKernel:
    return booted(default_hardware(), traits)


def first_difference(agreement: Agreement, seeds: range) -> Disagreement | None:
    return next(filter(None, (agreement.run(seed) for seed in seeds)), None)


@pytest.mark.parametrize("traits", KERNELS)
def test_a_host_that_is_the_model_agrees(traits: Traits) -> None:
    state = begin(traits)
    agreement = Agreement(ModelHost(state), state)

    assert first_difference(agreement, range(40)) is None
    assert agreement.tally.sequences == 40
    assert {"", "EINVAL", "EADDRNOTAVAIL"} <= set(agreement.tally.errors)


def test_a_wrong_errno_is_found_where_it_happens() -> None:
    def lie(request: Request, answer: Answer) -> Answer:
        shared = answer.error == "EADDRINUSE" and request.text is not None
        return Answer("EBUSY") if shared else answer

    state = begin()
    found = first_difference(Agreement(ModelHost(state, lie), state), range(200))

    assert found is not None
    assert (found.model, found.kernel) == ("EADDRINUSE", "EBUSY")
    assert found.steps[-1].outcome.errno is Errno.EADDRINUSE


def test_a_wrong_attribute_is_found() -> None:
    def lie(request: Request, answer: Answer) -> Answer:
        return Answer("", "05.0004") if request.path.endswith("guest_matrix") else answer

    state = begin()
    found = first_difference(Agreement(ModelHost(state, lie), state), range(5))

    assert found is not None
    assert found.what.endswith("guest_matrix")
    assert "after these operations:\n   1. " in str(found)


def test_a_queue_with_another_driver_is_found() -> None:
    state = begin()
    host = ModelHost(state)
    agreement = Agreement(host, state)
    host.links = lambda paths: ["nobody" for _ in paths]  # type: ignore[method-assign]

    found = agreement.run(1)

    assert found is not None
    assert found.kernel == "nobody"


def test_a_disagreement_is_made_smaller() -> None:
    def lie(request: Request, answer: Answer) -> Answer:
        is_assigned = request.path.endswith("/assign_adapter") and not answer.error
        return Answer("EIO") if is_assigned else answer

    def again(steps: Sequence[Step]) -> Disagreement | None:
        return Agreement(ModelHost(begin(), lie), begin()).do(steps)

    agreement = Agreement(ModelHost(begin(), lie), begin())
    found = first_difference(agreement, range(20))
    assert found is not None

    smaller = agreement.smaller(begin(), found, again)

    assert [step.operation.write is not None for step in smaller.steps] == [True, True]
    assert str(smaller.steps[0].operation).startswith("Write(path='/sys/devices/vfio_ap")


@pytest.mark.parametrize("traits", KERNELS)
def test_sequences_leave_no_device_and_do_no_harm(traits: Traits) -> None:
    state = begin(traits)
    for seed in range(60):
        steps = sample(state, Random(seed), 12)
        assert all(is_harmless(step.outcome) for step in steps)
        state = steps[-1].outcome.state
        assert not state.mdevs
        assert all(queue.driver and queue.passable for queue in state.queues.values())


def test_the_same_seed_gives_the_same_sequence() -> None:
    first, second = (sample(begin(), Random(3), 12) for _ in range(2))

    assert [str(step) for step in first] == [str(step) for step in second]


def test_what_must_not_be_done_is_not_replayed() -> None:
    """Removing a device that a machine has waits for that machine."""
    uuid = "00000001-7ac3-4f1d-9a52-6f3d2f6c0a11"
    operations: list[op.Operation] = [
        op.create_mdev(f"{uuid}\n"),
        op.OpenDevice(uuid, "vm"),
        op.remove_mdev(uuid),
    ]

    assert replay(begin(), operations) is None
