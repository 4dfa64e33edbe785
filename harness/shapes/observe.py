"""Shapes put into a real QEMU, and what the oracle says of what QEMU made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from harness.errors import LaunchFailed, MachineDied, ParseError, QmpFailed
from harness.machine.launch import Runnable
from harness.model.expectation import Difference, Expectation
from harness.model.memory_map import MemoryMap
from harness.model.version import QemuVersion
from harness.model.vfio.case import VfioCase
from harness.model.vfio.expectation import expect_vfio
from harness.model.vfio.mapping import VfioRefused
from harness.parse.mtree import parse_memory_map
from harness.shapes.areas import how_many_fit, place_shapes
from harness.shapes.bench import Bench
from harness.shapes.known import known_crash
from harness.shapes.programming import Programmer
from harness.shapes.served import case_of
from harness.shapes.shape import Shape

EXIT_REFUSED = 1
"""Status of a QEMU that refuses its command line."""


class Build(Runnable, Protocol):
    """A QEMU that can be started here and knows its version."""

    @property
    def version(self) -> QemuVersion:
        """Version of the build."""


@dataclass(frozen=True, slots=True)
class View:
    """The map after one step, and what it must be."""

    step: int
    case: VfioCase
    expectation: Expectation
    found: MemoryMap

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Return what differs."""
        return self.expectation.compare(self.found)


@dataclass(frozen=True, slots=True)
class Observation:
    """One shape in one QEMU."""

    shape: Shape
    refusal: str | None
    """What QEMU must say; None: it must take the shape."""
    views: tuple[View, ...] = ()
    ended: str = ""
    """How QEMU ended before all was read, with its words; empty if it did not."""
    status: int | None = 0
    """Its exit status (negative: signal), None if it had to be ended."""
    said: str = ""
    """What it said otherwise: warnings."""
    problem: str = ""
    """What is wrong in the end, empty if QEMU and the oracle agree."""
    rule: str = ""
    """Id of the rule that is broken, or a word for the kind of problem."""
    beside: tuple[Shape, ...] = ()
    """All shapes of its machine, if it agrees alone and not beside them."""
    known: str = ""
    """Page of docs/findings that explains it: then it is no new problem."""

    @property
    def agrees(self) -> bool:
        """Say whether nothing is wrong that is not known."""
        return not self.problem or bool(self.known)


def refusal_of(shape: Shape, qemu: QemuVersion) -> str | None:
    """Return the words with which QEMU must refuse *shape*, None if it must take it."""
    try:
        expect_vfio(case_of(shape, qemu=qemu, name="s0"))
    except VfioRefused as refused:
        return str(refused)
    return None


def observe(qemu: Build, shape: Shape) -> Observation:
    """Put one shape alone into QEMU and judge it.

    :raise LaunchFailed: QEMU cannot be started at all.
    """
    return observe_together(qemu, [shape])[0]


def observe_all(qemu: Build, shapes: Sequence[Shape], *, together: int = 8) -> list[Observation]:
    """Judge *shapes*, up to *together* in one machine; those QEMU must refuse alone."""
    found: dict[int, Observation] = {}
    legal: list[int] = []
    for number, shape in enumerate(shapes):
        if refusal_of(shape, qemu.version) is not None or known_crash(shape):
            found[number] = observe(qemu, shape)
        else:
            legal.append(number)
    while legal:
        count = how_many_fit([shapes[number] for number in legal], together)
        batch, legal = legal[:count], legal[count:]
        seen = _observe_company(qemu, [shapes[number] for number in batch])
        found |= dict(zip(batch, seen, strict=True))
    return [found[number] for number in range(len(shapes))]


def _observe_company(qemu: Build, shapes: Sequence[Shape]) -> list[Observation]:
    """Judge *shapes* in one machine; who is wrong there is judged again, alone.

    Is nobody wrong alone, then what is wrong is what they are beside each other.
    """
    seen = observe_together(qemu, shapes)
    if len(shapes) == 1 or not any(one.problem for one in seen):
        return seen
    again = [observe(qemu, one.shape) if one.problem else one for one in seen]
    if any(one.problem for one in again):
        return again
    return [replace(one, beside=tuple(shapes)) if one.problem else one for one in seen]


def observe_together(qemu: Build, shapes: Sequence[Shape]) -> list[Observation]:
    """Put *shapes* into one QEMU and judge each after each step."""
    refusals = [refusal_of(shape, qemu.version) for shape in shapes]
    views: list[list[View]] = [[] for _ in shapes]
    ended, said = "", ""
    status: int | None = 0
    try:
        with Bench(qemu, shapes) as bench:
            try:
                for step in range(max(len(shape.all_steps) for shape in shapes)):
                    bench.do_step(step)
                    found = parse_memory_map(bench.read_map())
                    for number, shape in enumerate(shapes):
                        if refusals[number] is None and step < len(shape.all_steps):
                            views[number].append(_view(qemu, bench, number, step, found))
                status = bench.quit()
                ended = f"QEMU ended with status {status} at 'quit'" if status else ""
            finally:
                said = bench.stderr()
    except LaunchFailed as failed:
        if failed.exit_status is None:
            raise
        ended, status, said = failed.summary, failed.exit_status, failed.stderr
    except (MachineDied, QmpFailed, ParseError) as failed:
        ended, status = str(failed), None
    return [
        _judge(shape, refusal, tuple(seen), ended, status, said)
        for shape, refusal, seen in zip(shapes, refusals, views, strict=True)
    ]


def judge_again(observation: Observation, qemu: QemuVersion) -> Observation:
    """Judge what was seen of a shape that was alone in its machine, by the oracle as it is now.

    QEMU is not asked again; that is how an oracle that lost a rule is shown to notice.
    """
    shape = observation.shape
    refusal = refusal_of(shape, qemu)
    programmer = Programmer(shape, place_shapes([shape])[0])
    views = []
    for step, (actions, seen) in enumerate(zip(shape.all_steps, observation.views, strict=False)):
        for action in actions:
            programmer.writes(action)
        if refusal is None:
            case = case_of(shape, qemu=qemu, name="s0", programmer=programmer)
            views.append(View(step, case, expect_vfio(case), seen.found))
    status = observation.status
    return _judge(shape, refusal, tuple(views), observation.ended, status, observation.said)


def _view(qemu: Build, bench: Bench, number: int, step: int, found: MemoryMap) -> View:
    case = case_of(
        bench.shapes[number],
        qemu=qemu.version,
        name=bench.names[number],
        programmer=bench.programmers[number],
    )
    return View(step, case, expect_vfio(case), found)


def _judge(
    shape: Shape,
    refusal: str | None,
    views: tuple[View, ...],
    ended: str,
    status: int | None,
    said: str,
) -> Observation:
    problem, rule = "", ""
    if ended and not (refusal is not None and status == EXIT_REFUSED and refusal in said):
        rule = "refused" if status == EXIT_REFUSED else "died"
        must = f"it must say: {refusal}" if refusal is not None else "it must take the shape"
        problem = f"{ended}; {must}\n{said.strip()[-2000:]}"
    elif refusal is not None and not ended:
        problem, rule = f"QEMU took the shape; it must say: {refusal}", "taken"
    else:
        for view in views:
            differences = view.differences
            if differences:
                steps = len(shape.all_steps)
                problem = f"after step {view.step + 1} of {steps}:\n" + "\n".join(
                    difference.explain() for difference in differences
                )
                rule = differences[0].rule
                break
    known = known_crash(shape) if rule == "died" else ""
    return Observation(shape, refusal, views, ended, status, said, problem, rule, known=known)


__all__ = [
    "Build",
    "Observation",
    "View",
    "judge_again",
    "observe",
    "observe_all",
    "observe_together",
    "refusal_of",
]
