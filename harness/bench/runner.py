"""Measure the subjects of a benchmark in turns, and make a result of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from harness.bench.model import Asked, Benchmark, Measure, Sample, Subject, turns
from harness.bench.pictures import write_pictures
from harness.bench.result import (
    BenchmarkResult,
    Comparison,
    Demand,
    Figure,
    Mark,
    NotMeasured,
)
from harness.bench.statistics import paired_ratio, spread
from harness.bench.timeline import from_records
from harness.errors import HarnessError
from harness.step import StepRecord, recorded

log = logging.getLogger(__name__)


class Observer(Protocol):
    """Is told how far the measurements are."""

    def began(self, benchmark: Benchmark, rounds: int) -> None:
        """A benchmark begins."""

    def turn(self, subject: Subject, round_number: int, rounds: int) -> None:
        """A subject is measured now."""

    def measured(self, subject: Subject, sample: Sample) -> None:
        """A subject was measured."""

    def broke(self, subject: Subject, why: str) -> None:
        """A subject broke and is left out from now on."""


class Silent:
    """Tells nobody."""

    def began(self, benchmark: Benchmark, rounds: int) -> None:
        """Do nothing."""

    def turn(self, subject: Subject, round_number: int, rounds: int) -> None:
        """Do nothing."""

    def measured(self, subject: Subject, sample: Sample) -> None:
        """Do nothing."""

    def broke(self, subject: Subject, why: str) -> None:
        """Do nothing."""


@dataclass(slots=True)
class _Taken:
    """The samples of one subject."""

    samples: dict[int, Sample] = field(default_factory=dict)
    """By round."""
    steps: dict[int, list[StepRecord]] = field(default_factory=dict)
    failure: str = ""

    def series(self, measure: str) -> dict[int, float]:
        return {at: one[measure] for at, one in self.samples.items() if measure in one}


def measure(
    benchmark: Benchmark,
    *,
    rounds: int,
    evidence: Path,
    seconds: float | None = None,
    observer: Observer | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> BenchmarkResult:
    """Measure *benchmark*; a subject that breaks is left out of the rounds that follow.

    :param rounds: how often each subject is measured.
    :param seconds: no round begins later than this; the first always does.
    :param evidence: gets a directory per measurement.
    """
    observer = observer or Silent()
    present = [subject for subject in benchmark.subjects if not subject.missing]
    taken = {subject.name: _Taken() for subject in present}
    order: list[tuple[str, ...]] = []
    began = clock()
    observer.began(benchmark, rounds)
    for number in range(rounds if present else 0):
        if number and seconds is not None and clock() - began > seconds:
            break
        in_turn = list(_in_turn(present, taken, number))
        if not in_turn:
            break
        for subject in in_turn:
            observer.turn(subject, number, rounds)
            place = evidence / benchmark.name / f"{number}-{_file_name(subject.name)}"
            place.mkdir(parents=True, exist_ok=True)
            try:
                with recorded() as steps:
                    sample = subject.run(place)
            except HarnessError as error:
                log.warning("%s, %s: %s", benchmark.name, subject.name, error)
                taken[subject.name].failure = str(error)
                observer.broke(subject, error.summary)
                continue
            taken[subject.name].samples[number] = sample
            taken[subject.name].steps[number] = steps
            observer.measured(subject, sample)
        order.append(tuple(subject.name for subject in in_turn))
    result = conclude(
        benchmark,
        {name: one.samples for name, one in taken.items()},
        failures={name: one.failure for name, one in taken.items() if one.failure},
        order=order,
        seconds=clock() - began,
    )
    if not benchmark.is_pictured:
        return result
    pictures = _pictures(benchmark, taken, evidence / benchmark.name)
    return result.model_copy(update={"pictures": tuple(map(str, pictures))})


def _pictures(benchmark: Benchmark, taken: dict[str, _Taken], place: Path) -> Iterator[Path]:
    """Draw, of each subject with steps, the measurement that is nearest the median."""
    first = benchmark.measures[0].name
    for name, one in taken.items():
        series = one.series(first)
        if not series:
            continue
        nearest = _nearest_median(series)
        if spans := from_records(one.steps[nearest]):
            title = f"{benchmark.title}: {name}, {series[nearest]:.2f} s"
            yield from write_pictures(spans, place, _file_name(name), title=title)


def _nearest_median(series: dict[int, float]) -> int:
    middle = spread(tuple(series.values())).median
    return min(series, key=lambda at: abs(series[at] - middle))


def _in_turn(
    present: Sequence[Subject], taken: dict[str, _Taken], number: int
) -> Iterator[Subject]:
    for at in turns(len(present), number):
        subject = present[at]
        if not taken[subject.name].failure and number < subject.rounds:
            yield subject


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text)


def conclude(
    benchmark: Benchmark,
    samples: dict[str, dict[int, Sample]],
    *,
    failures: dict[str, str],
    order: Sequence[tuple[str, ...]],
    seconds: float,
) -> BenchmarkResult:
    """Return what *samples* (by subject, then round) say. Pure."""
    taken = {name: _Taken(by_round) for name, by_round in samples.items()}
    figures = [
        _figure(subject, measure, series)
        for measure in benchmark.measures
        for subject in benchmark.subjects
        if (series := taken.get(subject.name, _Taken()).series(measure.name))
    ]
    absent = [
        NotMeasured(subject=subject.name, why=subject.missing, is_failure=False)
        for subject in benchmark.subjects
        if subject.missing
    ]
    broken = [
        NotMeasured(subject=name, why=why, is_failure=True) for name, why in failures.items()
    ]
    reasons = {one.subject: one.why for one in (*absent, *broken)}
    return BenchmarkResult(
        name=benchmark.name,
        title=benchmark.title,
        rounds=len(order),
        order=tuple(order),
        seconds=seconds,
        figures=tuple(figures),
        comparisons=tuple(_comparisons(benchmark, taken)),
        demands=tuple(_demand(one, taken, reasons) for one in benchmark.asked),
        not_measured=(*absent, *broken),
        notes=tuple(benchmark.notes),
    )


def _figure(subject: Subject, measure: Measure, series: dict[int, float]) -> Figure:
    values = tuple(series.values())
    found = spread(values)
    return Figure(
        subject=subject.name,
        role=subject.role.value,
        measure=measure.name,
        unit=measure.unit,
        more_is_better=measure.more_is_better,
        values=values,
        rounds=tuple(series),
        median=found.median,
        mad=found.mad,
        quartiles=found.quartiles,
    )


def _comparisons(benchmark: Benchmark, taken: dict[str, _Taken]) -> Iterator[Comparison]:
    """Yield the first subject, whose benchmark it is, over each other one."""
    if not benchmark.subjects:
        return
    ours = benchmark.subjects[0].name
    for measure in benchmark.measures:
        for other in benchmark.subjects[1:]:
            found = _compare(measure.name, ours, other.name, taken)
            if found is not None:
                yield found


def _compare(measure: str, of: str, over: str, taken: dict[str, _Taken]) -> Comparison | None:
    ours = taken.get(of, _Taken()).series(measure)
    theirs = taken.get(over, _Taken()).series(measure)
    common = [at for at in ours if at in theirs]
    if not common or min(theirs[at] for at in common) <= 0:
        return None
    found = paired_ratio([ours[at] for at in common], [theirs[at] for at in common])
    return Comparison(
        measure=measure, of=of, over=over, ratio=found.ratio, low=found.low, high=found.high,
        confidence=found.confidence, of_medians=found.of_medians,
    )  # fmt: skip


def _demand(asked: Asked, taken: dict[str, _Taken], reasons: dict[str, str]) -> Demand:
    measured: tuple[float, float, float] | None = None
    if asked.over:
        found = _compare(asked.measure, asked.of, asked.over, taken)
        if found is not None:
            measured = (found.ratio, found.low, found.high)
    elif series := taken.get(asked.of, _Taken()).series(asked.measure):
        values = spread(tuple(series.values()))
        measured = (values.median, *values.quartiles)
    if measured is None:
        why = "; ".join(f"{name}: {reasons[name].splitlines()[0]}" for name in
                        (asked.of, asked.over) if name in reasons)  # fmt: skip
        return Demand(
            asked=asked.text, limit=asked.limit, at_most=asked.at_most, measured=None,
            mark=Mark.NOT_MEASURED, is_sure=False, why=why or "no figures",
        )  # fmt: skip
    value, low, high = measured
    met = asked.holds(value)
    return Demand(
        asked=asked.text,
        limit=asked.limit,
        at_most=asked.at_most,
        measured=value,
        low=low,
        high=high,
        mark=Mark.MET if met else Mark.MISSED,
        is_sure=asked.holds(low) == met and asked.holds(high) == met,
    )
