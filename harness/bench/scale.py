"""Benchmark ``scale``: what more tests cost, one after the other and side by side."""

from __future__ import annotations

from pathlib import Path

from harness.bench.laboratory import Laboratory
from harness.bench.model import Asked, Benchmark, Measure, Role, Sample, Subject
from harness.bench.pytest_runs import run_made
from harness.bench.statistics import slope

COUNTS = (1, 2, 4, 8)
EACH = "each more"
ALONE = "one process"
TESTS = """
import pytest

@pytest.mark.parametrize("number", range({count}))
@pytest.mark.parametrize("assigned", ["nvme"], indirect=True)
def test_map(assigned, number):
    expected = assigned.expectation()
    assert not expected.compare(assigned.memory_map())
"""


def scale(lab: Laboratory) -> Benchmark:
    """Return the benchmark."""
    return Benchmark(
        name="scale",
        title="runs of 1, 2, 4 and 8 tests that judge the map of a nested guest's nvme",
        measures=(*(Measure(_name(count)) for count in COUNTS), Measure(EACH)),
        subjects=(
            Subject(ALONE, Role.OURS, lambda place: _sample(lab, place, None), rounds=3),
            *(
                Subject(
                    f"{workers} workers" if workers > 1 else "1 worker",
                    Role.PEER,
                    lambda place, workers=workers: _sample(lab, place, workers),  # type: ignore[misc]
                    rounds=3,
                )
                for workers in (1, 2)
            ),
        ),
        asked=(Asked("at most 1.5 s for each more warm test", EACH, ALONE, 1.5),),
        notes=(f"{EACH}: slope of the line through the four (Theil-Sen); three rounds at most",),
    )


def _name(count: int) -> str:
    return f"{count} test{'s' if count > 1 else ''}"


def _sample(lab: Laboratory, place: Path, workers: int | None) -> Sample:
    took: dict[int, float] = {}
    for count in COUNTS:
        at = place / str(count)
        at.mkdir()
        tests = TESTS.format(count=count)
        took[count] = run_made(lab, at, tests, workers=workers, expected=count).seconds
    each = slope([(float(count), seconds) for count, seconds in took.items()]).each
    return {**{_name(count): seconds for count, seconds in took.items()}, EACH: each}
