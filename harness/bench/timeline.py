"""Where the time of something goes: its steps as spans, and what to show of them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from harness.errors import ParseError
from harness.step import StepRecord


@dataclass(frozen=True, slots=True)
class Span:
    """Something that lasted."""

    text: str
    began: float
    """Seconds since the epoch."""
    seconds: float
    depth: int = 0
    thread: str = "MainThread"
    worker: str = "main"
    failed: str = ""
    test: str = ""
    """Node id of the test that it is, or is a phase of; empty for steps."""

    @property
    def ended(self) -> float:
        """Seconds since the epoch."""
        return self.began + self.seconds


def from_records(records: Iterable[StepRecord], *, worker: str = "main") -> list[Span]:
    """Return the ended steps among *records*, outer before inner."""
    spans = [
        Span(one.text, one.began, one.seconds, one.depth, one.thread, worker, one.failed)
        for one in records
        if one.seconds is not None
    ]
    return in_order(spans)


def in_order(spans: Iterable[Span]) -> list[Span]:
    """Return *spans* as they began, outer before inner."""
    return sorted(spans, key=lambda span: (span.began, -span.seconds, span.depth))


def read_lines(text: str, *, where: str) -> list[Span]:
    """Read ``steps.jsonl`` of a run.

    A last line that a killed run did not finish is left out.

    :raise ParseError: another line is no JSON object with the fields of a span.
    """
    spans = []
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            fields = json.loads(line)
            spans.append(Span(**fields))
        except (ValueError, TypeError) as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise ParseError(
                f"not a step: {error}", text=line.strip(), where=f"{where}:{number}"
            ) from error
    return in_order(spans)


def durations_of_tests(spans: Sequence[Span]) -> dict[str, float]:
    """Return the node ids of the tests and how long each took with set-up and tear-down."""
    took: dict[str, float] = {}
    for span in spans:
        if span.test:
            took[span.test] = took.get(span.test, 0.0) + span.seconds
    return took


def of_test(spans: Sequence[Span], test: str) -> list[Span]:
    """Return the phases of *test* and, one deeper, what its worker did meanwhile."""
    phases = [span for span in spans if span.test == test]
    if not phases:
        return []
    worker = phases[0].worker
    inside = [
        replace(span, depth=span.depth + 1)
        for span in spans
        if not span.test
        and span.worker == worker
        and any(phase.began <= span.began <= phase.ended for phase in phases)
    ]
    return in_order([*phases, *inside])


def condensed(spans: Sequence[Span], *, rows: int) -> tuple[list[Span], list[Span]]:
    """Return the *rows* longest of *spans* in their order, and those left out."""
    longest = sorted(range(len(spans)), key=lambda at: -spans[at].seconds)
    kept = set(longest[:rows])
    return (
        [span for at, span in enumerate(spans) if at in kept],
        [span for at, span in enumerate(spans) if at not in kept],
    )


def uncovered(spans: Sequence[Span]) -> float:
    """Return the seconds between the first begin and the last end in which nothing lasted."""
    if not spans:
        return 0.0
    gap, reached = 0.0, min(span.began for span in spans)
    for span in in_order(spans):
        gap += max(0.0, span.began - reached)
        reached = max(reached, span.ended)
    return gap
