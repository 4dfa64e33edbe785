"""Benchmark ``suite``: the default run of all suites, in one process and with two workers."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from harness.bench.laboratory import Laboratory
from harness.bench.model import Asked, Benchmark, Measure, Role, Sample, Subject
from harness.bench.pytest_runs import ended
from harness.errors import MachineError

OURS = "2 workers"
ALONE = "one process"
WHOLE = "whole run"
TESTS = "tests"
MEAN = "a test, on average"
FACTS = "run.json"


def suite(lab: Laboratory) -> Benchmark:
    """Return the benchmark."""
    return Benchmark(
        name="suite",
        title="trapline run of all suites, states saved before",
        measures=(Measure(WHOLE), Measure(TESTS, ""), Measure(MEAN)),
        subjects=(
            Subject(OURS, Role.OURS, lambda place: _sample(lab, place, 2), rounds=1),
            Subject(ALONE, Role.PEER, lambda place: _sample(lab, place, 0), rounds=1),
        ),
        asked=(
            Asked("within 90 s with two workers", WHOLE, OURS, 90),
            Asked("at least 60 tests", TESTS, OURS, 60, at_most=False),
            Asked("two workers at least 1.6 times faster", WHOLE, ALONE, 1.6, OURS, at_most=False),
        ),
    )


def _sample(lab: Laboratory, place: Path, workers: int) -> Sample:
    results = place / "results"
    # fmt: off
    words = [
        sys.executable, "-m", "harness.cli", "run", "-n", str(workers), f"--results={results}",
        *lab.parts.settings.options(),
    ]
    # fmt: on
    began = time.monotonic()
    status, said = ended(words, place / "run.log", cwd=place)
    took = time.monotonic() - began
    if status != 0:
        raise MachineError(f"the suites ended with {status}", seen=said[-2000:], evidence=results)
    passed = count_passed((results / "latest" / FACTS).read_text(encoding="utf-8"))
    return {WHOLE: took, TESTS: float(passed), MEAN: took / max(passed, 1)}


def count_passed(facts: str) -> int:
    """Return how many tests passed, of the ``run.json`` of a run. Pure.

    :raise MachineError: it does not say.
    """
    try:
        return int(json.loads(facts)["counts"]["pass"])
    except (ValueError, KeyError, TypeError) as error:
        raise MachineError("the run does not say how many tests passed", seen=facts) from error
