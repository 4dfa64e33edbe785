"""Whatever is planned, every test is handed out exactly once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.spread.plan import Plan, Work
from harness.spread.scheduler import Scheduler
from harness.spread.shared import Shared


class Worker:
    """An xdist node that runs what it has when it knows the next, or that there is none."""

    def __init__(self, number: int) -> None:
        self.gateway = SimpleNamespace(id=f"gw{number}")
        self.shutting_down = False
        self.to_do: list[int] = []
        self.busy = 0.0

    def send_runtest_some(self, indices: list[int]) -> None:
        assert not self.shutting_down
        self.to_do += indices

    def shutdown(self) -> None:
        self.shutting_down = True

    @property
    def can_run(self) -> bool:
        return len(self.to_do) > 1 or bool(self.to_do and self.shutting_down)


def run(works: list[Work], costs: dict[str, float], count: int) -> list[int]:
    """Return the tests in the order in which they ran."""
    nodeids = [f"{work.file}::t{work.index}" for work in works]
    config: Any = SimpleNamespace()
    scheduler: Any = Scheduler(config, count, lambda ids: Plan(works, costs))
    workers = [Worker(number) for number in range(count)]
    for worker in workers:
        scheduler.add_node(worker)
    for worker in workers:
        scheduler.add_node_collection(worker, nodeids)
    scheduler.schedule()
    ran: list[int] = []
    while able := [worker for worker in workers if worker.can_run]:
        worker = min(able, key=lambda one: one.busy + works[one.to_do[0]].seconds)
        index = worker.to_do.pop(0)
        worker.busy += works[index].seconds
        ran.append(index)
        scheduler.mark_test_complete(worker, index)
    assert all(worker.shutting_down for worker in workers)
    return ran


SHARED = st.one_of(
    st.none(),
    st.builds(
        Shared, st.sampled_from("AB"), st.just(2.0), st.integers(0, 5), st.sampled_from(["", "l"])
    ),
)
TEST = st.tuples(st.sampled_from(["a.py", "b.py"]), st.sampled_from([0.1, 1, 3, 10]),
                 st.booleans(), SHARED)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(tests=st.lists(TEST, min_size=1, max_size=12), count=st.integers(1, 4))
def test_every_test_runs_once(tests: list[Any], count: int) -> None:
    works = [Work(n, file, s, known, shared) for n, (file, s, known, shared) in enumerate(tests)]

    assert sorted(run(works, {}, count)) == list(range(len(works)))


def test_what_nobody_finds_worth_joining_is_done_by_who_is_left() -> None:
    group, other = Shared("A", 2.0), Shared("B", 2.0)
    works = [
        Work(0, "a.py", 10.0, True, group),
        Work(1, "a.py", 3.0, True, group),
        Work(2, "b.py", 1.0, True, other),
    ]

    assert sorted(run(works, {}, 2)) == [0, 1, 2]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_run_of_one_test_ends(count: int) -> None:
    assert run([Work(0, "a.py", 1.0)], {}, count) == [0]
