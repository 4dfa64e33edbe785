"""Chunks that fail: nothing is lost, and only what a mutant did is put down to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from harness.model.memory_map import Kind
from harness.model.pci import BarKind
from harness.shapes import notice, run
from harness.shapes.mutants import mutants
from harness.shapes.observe import Observation, judge_again, observe_all
from harness.shapes.shape import Shape, ShapeBar

PLAIN = Shape((ShapeBar(0, BarKind.MEM64, 0x8000),))


def test_every_kind_of_failure_is_counted_also_where_few_are_shrunk(
    build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = run.MOST_SHRUNK + 2
    wrong = [Observation(replace(PLAIN, msi=n), None, problem="x", rule=f"R{n % kinds}")
             for n in range(3 * kinds)]  # fmt: skip
    shrunk: list[Shape] = []

    def shrink(seed: int, number: int, size: int, failing: Shape, fails: Any) -> Shape:
        shrunk.append(failing)
        return failing

    monkeypatch.setattr(run, "make_chunk", lambda *_: [one.shape for one in wrong])
    monkeypatch.setattr(run, "observe_all", lambda *_: wrong)
    monkeypatch.setattr(run, "observe", lambda _, shape: replace(wrong[0], shape=shape))
    monkeypatch.setattr(run, "shrink", shrink)
    monkeypatch.setattr(run, "floor", lambda _: 0.1)

    result = run.run_chunk(build, 1, 0)

    assert sum(failure.count for failure in result.failures) == len(wrong)
    assert len(result.failures) == kinds
    assert len(shrunk) == run.MOST_SHRUNK


def chunks_of_one(seed: int, number: int, size: int) -> Sequence[Shape]:
    return [PLAIN]


def test_a_mutant_is_noticed_by_what_the_whole_oracle_agrees_with(
    build: Any, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notice, "make_chunk", chunks_of_one)
    lost = next(mutant for mutant in mutants() if mutant.name == "rows of WHOLE")

    # The bench asks the oracle too, the one of its time: so it must not be the mutant.
    seen = observe_all(build, [PLAIN])
    with lost.in_place():
        mutated = [judge_again(one, build.version) for one in seen]
    monkeypatch.setattr(notice, "observe_all", lambda *_: mutated)

    found = notice.notice(build, lost, 1, 5.0)

    assert (found.shapes, found.said) == (1, mutated[0].problem)
    assert found.said


def test_a_mutant_is_not_noticed_by_what_no_oracle_agrees_with(
    build: Any, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notice, "make_chunk", chunks_of_one)
    bench.change = staticmethod(lambda row: replace(row, kind=Kind.IO, word=None))
    idle = next(mutant for mutant in mutants() if mutant.name == "rows of TABLE")

    assert notice.notice(build, idle, 1, 0.05).said == ""
