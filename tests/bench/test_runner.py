"""Benchmarks with made-up subjects: turns, limits, breakages and what is concluded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.bench.model import Asked, Benchmark, Measure, Role, Sample, Subject, turns
from harness.bench.result import Mark
from harness.bench.runner import measure
from harness.errors import LaunchFailed


def subject(
    name: str, values: Sequence[float], called: list[str] | None = None, *, rounds: int = 99
) -> Subject:
    """Return a subject that takes *values* in turn."""
    left = list(values)

    def run(place: Path) -> Sample:
        assert place.is_dir()
        if called is not None:
            called.append(name)
        return {"time": left.pop(0)}

    return Subject(name, Role.OURS, run, rounds=rounds)


def benchmark(*subjects: Subject, asked: Sequence[Asked] = ()) -> Benchmark:
    return Benchmark("made", "made up", (Measure("time"),), subjects, asked)


def breaking(name: str, *, at: int = 0) -> Subject:
    """Return a subject that breaks in its *at*-th turn."""
    turn = iter(range(100))

    def run(_: Path) -> Sample:
        if next(turn) == at:
            raise LaunchFailed("QEMU ended", exit_status=1, stderr="no such device")
        return {"time": 1.0}

    return Subject(name, Role.FLOOR, run)


@given(st.integers(0, 8), st.integers(0, 20))
def test_a_round_has_every_subject_once(count: int, number: int) -> None:
    assert sorted(turns(count, number)) == list(range(count))


@given(st.integers(1, 8), st.integers(0, 20))
def test_each_round_goes_the_other_way(count: int, number: int) -> None:
    assert turns(count, number) == turns(count, number + 1)[::-1]


@given(st.integers(2, 8), st.integers(1, 10))
def test_a_steady_drift_favours_nobody_over_two_rounds(count: int, pair: int) -> None:
    sequence = turns(count, 2 * pair) + turns(count, 2 * pair + 1)

    places = [[at for at, one in enumerate(sequence) if one == who] for who in range(count)]
    assert len({sum(one) for one in places}) == 1


def test_subjects_are_measured_in_alternating_order(tmp_path: Path) -> None:
    called: list[str] = []
    result = measure(
        benchmark(subject("A", [1, 2, 3], called), subject("B", [4, 5, 6], called)),
        rounds=3,
        evidence=tmp_path,
    )

    assert called == ["A", "B", "B", "A", "A", "B"]
    assert result.order == (("A", "B"), ("B", "A"), ("A", "B"))
    assert [figure.values for figure in result.figures] == [(1, 2, 3), (4, 5, 6)]


def test_no_round_begins_after_the_time_but_the_first(tmp_path: Path) -> None:
    result = measure(
        benchmark(subject("A", [1, 1, 1]), subject("B", [2, 2, 2])),
        rounds=3,
        seconds=0,
        evidence=tmp_path,
        clock=iter(range(100)).__next__,
    )

    assert result.rounds == 1


def test_a_subject_can_want_fewer_rounds(tmp_path: Path) -> None:
    result = measure(
        benchmark(subject("A", [2, 2, 8]), subject("B", [1], rounds=1)),
        rounds=3,
        evidence=tmp_path,
    )

    assert [len(figure.values) for figure in result.figures] == [3, 1]
    # Compared is only what was measured in the same rounds.
    assert [one.ratio for one in result.comparisons] == [2]


def test_what_breaks_is_left_out_and_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    result = measure(
        benchmark(subject("A", [1, 1, 1]), breaking("B", at=1)), rounds=3, evidence=tmp_path
    )

    assert result.order == (("A", "B"), ("B", "A"), ("A",))
    (broken,) = result.not_measured
    assert broken.subject == "B"
    assert broken.is_failure
    assert "no such device" in broken.why


def test_what_is_not_here_has_a_reason_and_no_figures(tmp_path: Path) -> None:
    absent = Subject.absent("peer", Role.PEER, "apt-get install peer")
    result = measure(
        benchmark(
            subject("A", [1]), absent, asked=[Asked("faster than peer", "time", "A", 1, "peer")]
        ),
        rounds=1,
        evidence=tmp_path,
    )

    assert [figure.subject for figure in result.figures] == ["A"]
    assert not result.comparisons
    (missing,) = result.not_measured
    assert (missing.why, missing.is_failure) == ("apt-get install peer", False)
    (demand,) = result.demands
    assert demand.mark is Mark.NOT_MEASURED
    assert demand.measured is None
    assert "apt-get install peer" in demand.why


def test_nothing_to_measure_is_no_round(tmp_path: Path) -> None:
    result = measure(
        benchmark(Subject.absent("A", Role.OURS, "gone")), rounds=3, evidence=tmp_path
    )

    assert (result.rounds, result.figures) == (0, ())


def test_an_interrupt_ends_the_measurement(tmp_path: Path) -> None:
    def run(_: Path) -> Sample:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(benchmark(Subject("A", Role.OURS, run)), rounds=3, evidence=tmp_path)


AT_MOST: Callable[..., Asked] = lambda limit, over="": Asked(  # noqa: E731
    "asked", "time", "A", limit, over
)


@pytest.mark.parametrize(
    ("asked", "mark", "is_sure"),
    [
        (AT_MOST(4), Mark.MET, True),
        (AT_MOST(1), Mark.MISSED, True),
        (AT_MOST(2.1), Mark.MET, False),
        (AT_MOST(0.5, "B"), Mark.MET, True),
        (AT_MOST(0.05, "B"), Mark.MISSED, True),
        (Asked("asked", "time", "B", 4, "A", at_most=False), Mark.MET, False),
        (Asked("asked", "time", "B", 11, "A", at_most=False), Mark.MISSED, True),
    ],
)
def test_a_demand_is_told_with_how_sure_it_is(
    asked: Asked, mark: Mark, is_sure: bool, tmp_path: Path
) -> None:
    result = measure(
        benchmark(subject("A", [1, 2, 3]), subject("B", [10, 10, 10]), asked=[asked]),
        rounds=3,
        evidence=tmp_path,
    )

    (demand,) = result.demands
    assert (demand.mark, demand.is_sure) == (mark, is_sure)
