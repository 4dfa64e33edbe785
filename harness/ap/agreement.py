"""Whether the model of an AP host and a real kernel agree, for random sequences of operations.

Sequences follow one another on the same host: what one leaves behind (masks, cards, domains)
the next begins with, and the model goes along. After a disagreement the host is no longer what
the model thinks: the caller takes another one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from harness.ap.agreement_plan import Step, replay, sample
from harness.ap.attributes import Answer, Request
from harness.model.ap import sysfs as ap_sysfs
from harness.model.ap.hardware import ApHardware
from harness.model.ap.kernel import ApKernel
from harness.model.ap.operation import CloseDevice, OpenDevice, Operation, ResetDevice

LENGTH = 12
"""Operations of a sequence, cleaning not counted."""


class ComparedHost(Protocol):
    """A host that the model is compared with."""

    def batch(self, requests: Sequence[Request]) -> list[Answer]:
        """Read and write attributes, in order."""

    def links(self, paths: Sequence[str]) -> list[str]:
        """Return the last names of links, empty where there is none."""

    def set_hardware(self, hardware: ApHardware) -> None:
        """Change the machine."""

    def open(self, uuid: str) -> str:
        """Open a matrix device in a virtual machine of its own; return the errno."""

    def reset(self, uuid: str) -> str:
        """Reset one that is open; return the errno."""

    def let_go(self, uuid: str) -> None:
        """Close one that is open."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Where model and kernel part."""

    steps: tuple[Step, ...]
    """The sequence, up to the step."""
    what: str
    """An errno, or the path of an attribute."""
    model: str
    kernel: str

    def __str__(self) -> str:
        done = "\n".join(f"  {number:2}. {step}" for number, step in enumerate(self.steps, 1))
        return (
            f"after these operations:\n{done}\n{self.what}\n"
            f"  model:  {self.model!r}\n  kernel: {self.kernel!r}"
        )


@dataclass(slots=True)
class Tally:
    """What was compared so far."""

    sequences: int = 0
    operations: int = 0
    texts: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """How often each errno was seen; the empty name: accepted."""

    def __str__(self) -> str:
        errors = ", ".join(f"{name or 'accepted'} {n}" for name, n in self.errors.most_common())
        return (
            f"{self.sequences} sequences, {self.operations} operations, {self.texts} attributes"
            f" ({errors})"
        )


class Agreement:
    """Compares one host with its model.

    :param state: the model of the host as it is now.
    """

    def __init__(self, host: ComparedHost, state: ApKernel) -> None:
        self._host = host
        self.state = state
        self.tally = Tally()

    def run(self, seed: int, *, length: int = LENGTH) -> Disagreement | None:
        """Do the sequence of *seed* on both; return where they part, None if they agree."""
        return self.do(sample(self.state, Random(seed), length))

    def do(self, steps: Sequence[Step]) -> Disagreement | None:
        """Do *steps* on the host, compare with what the model says; then compare everything."""
        done: list[Step] = []
        for part in _parts(steps):
            found = self._other(part[0], done) if _is_other(part[0]) else self._writes(part, done)
            if found is not None:
                return found
            self.state = part[-1].outcome.state
        self.tally.sequences += 1
        return self._everything(done)

    def smaller(self, start: ApKernel, found: Disagreement, again: Again) -> Disagreement:
        """Return a shorter sequence from *start* on that parts model and kernel too.

        :param again: does steps on a host that is in *start*; one for each attempt.
        """
        kept = [step.operation for step in found.steps]
        at = 0
        while at < len(kept):
            fewer = kept[:at] + kept[at + 1 :]
            steps = replay(start, fewer)
            shorter = again(steps) if steps is not None else None
            if shorter is None:
                at += 1
            else:
                found, kept = shorter, fewer
        return found

    def _writes(self, part: Sequence[Step], done: list[Step]) -> Disagreement | None:
        """Make the writes of *part* in one trip, with a look at each device that was changed."""
        requests: list[Request] = []
        wanted: list[tuple[int, str, Answer]] = []
        for number, step in enumerate(part):
            path, text = _written(step.operation)
            requests.append(Request(path, text.removesuffix("\n")))
            wanted.append((number, f"the write to {path}", Answer(str(step.outcome.errno or ""))))
            for place, said in _looked_at(step):
                requests.append(Request(place))
                wanted.append((number, place, Answer("", said.rstrip("\n"))))
        answers = self._host.batch(requests)
        for (number, what, expected), answer in zip(wanted, answers, strict=True):
            self._count(expected)
            if answer != expected:
                steps = (*done, *part[: number + 1])
                return Disagreement(steps, what, _said(expected), _said(answer))
        done += part
        return None

    def _other(self, step: Step, done: list[Step]) -> Disagreement | None:
        """Do what is no write."""
        operation, error = step.operation, ""
        if isinstance(operation, OpenDevice):
            error = self._host.open(operation.uuid)
        elif isinstance(operation, CloseDevice):
            self._host.let_go(operation.uuid)
        elif isinstance(operation, ResetDevice):
            error = self._host.reset(operation.uuid)
        else:
            self._host.set_hardware(step.outcome.state.hardware)
        done.append(step)
        expected = str(step.outcome.errno or "")
        self._count(Answer(expected))
        if error == expected:
            return None
        return Disagreement(tuple(done), str(operation), expected or "done", error or "done")

    def _everything(self, done: Sequence[Step]) -> Disagreement | None:
        texts, links = ap_sysfs.texts(self.state), ap_sysfs.links(self.state)
        answers = self._host.batch([Request(path) for path in texts])
        for (path, text), answer in zip(texts.items(), answers, strict=True):
            self.tally.texts += 1
            if answer != Answer("", text.rstrip("\n")):
                return Disagreement(tuple(done), path, text.rstrip("\n"), _said(answer))
        names = self._host.links(list(links))
        for (path, name), seen in zip(links.items(), names, strict=True):
            if seen != (name or ""):
                return Disagreement(tuple(done), path, name or "no driver", seen or "no driver")
        return None

    def _count(self, expected: Answer) -> None:
        if expected.text:
            self.tally.texts += 1
        else:
            self.tally.operations += 1
            self.tally.errors[expected.error] += 1


class Again(Protocol):
    """Does steps on a fresh host; see `Agreement.smaller`."""

    def __call__(self, steps: Sequence[Step]) -> Disagreement | None:
        """Return where model and kernel part."""


def _is_other(step: Step) -> bool:
    return step.operation.write is None


def _parts(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Yield runs of writes, and everything else alone."""
    part: list[Step] = []
    for step in steps:
        if _is_other(step):
            if part:
                yield part
            yield [step]
            part = []
        else:
            part.append(step)
    if part:
        yield part


def _written(operation: Operation) -> tuple[str, str]:
    write = operation.write
    assert write is not None
    return write


def _looked_at(step: Step) -> Iterator[tuple[str, str]]:
    """Yield attributes, and what they must say, of the matrix device that a step is about."""
    path, _ = _written(step.operation)
    place = path.rpartition("/")[0]
    for mdev in step.outcome.state.mdevs:
        here = f"{ap_sysfs.MATRIX}/{mdev.uuid}"
        if place == here:
            texts = ap_sysfs.mdev_texts(mdev)
            yield from ((f"{here}/{name}", texts[name]) for name in ("guest_matrix", "ap_config"))


def _said(answer: Answer) -> str:
    return answer.error or answer.text or "done"
