"""Who runs what next, decided without a process or a clock."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.spread.plan import LONG, Plan, Work
from harness.spread.shared import Shared


def works(*tests: tuple[str, float, Shared | None]) -> list[Work]:
    return [Work(i, file, seconds, True, thing) for i, (file, seconds, thing) in enumerate(tests)]


def plan_for(workers: Sequence[str], tests: Sequence[Work]) -> Plan:
    plan = Plan(tests)
    for worker in workers:
        plan.join(worker)
    return plan


def everything(plan: Plan, worker: str) -> list[int]:
    taken = []
    while (index := plan.take(worker)) is not None:
        taken.append(index)
    return taken


GUEST = Shared("guest", 15, turn=1)
BARE = Shared("bare", 5, turn=2)


def test_a_worker_stays_with_what_it_made() -> None:
    plan = plan_for("ab", works(("x", 1, GUEST), ("y", 1, BARE), ("z", 1, GUEST), ("w", 1, BARE)))

    assert [plan.take(worker) for worker in "abab"] == [0, 1, 2, 3]


def test_the_longest_group_goes_first_and_loose_tests_fill_the_end() -> None:
    plan = plan_for("ab", works(("x", 1, None), ("y", 1, BARE), ("z", 30, GUEST)))

    assert [plan.take(worker) for worker in "aba"] == [2, 1, 0]


def test_a_long_loose_test_goes_before_shorter_groups() -> None:
    plan = plan_for("ab", works(("x", 1, None), ("x", 40, None), ("y", 1, BARE)))

    assert [plan.take(worker) for worker in "ab"] == [1, 2]


def test_a_group_is_shared_out_only_when_more_is_left_than_making_it_again_costs() -> None:
    small = plan_for("ab", works(*[("x", 1, GUEST)] * 10))
    large = plan_for("ab", works(*[("x", 1, GUEST)] * 30))

    assert [small.take("a"), small.take("b")] == [0, None]
    assert [large.take("a"), large.take("b")] == [0, 1]


def test_loose_tests_are_taken_before_a_group_is_shared_out() -> None:
    plan = plan_for("ab", works(*[("x", 2, GUEST)] * 30, ("y", 1, None)))

    assert [plan.take("a"), plan.take("b")] == [0, 30]


def test_who_joins_a_group_goes_to_a_file_of_its_own() -> None:
    tests = [("x", 2.0, GUEST)] * 20 + [("y", 2.0, GUEST)] * 10
    plan = plan_for("ab", works(*tests))

    assert [plan.take("a"), plan.take("b")] == [0, 20]


def test_behind_a_long_test_comes_a_short_one() -> None:
    plan = plan_for(
        "a", works(("x", LONG, BARE), ("x", 2, BARE), ("y", 0.1, BARE), ("x", 1, BARE))
    )

    assert [plan.take("a") for _ in range(4)] == [0, 3, 1, 2]


def test_an_earlier_turn_comes_first_however_short() -> None:
    early = Shared("guest", 15, turn=0)
    plan = plan_for("a", works(("x", 60, GUEST), ("y", 0.1, early)))

    assert everything(plan, "a") == [1, 0]


def test_the_last_of_a_group_is_begun_while_others_do_what_comes_before() -> None:
    end = Shared("guest", 15, turn=2)
    plan = plan_for("ab", works(*[("x", 2, GUEST)] * 30, ("y", 9, end)))

    turns = itertools.cycle("ab")
    ender = next(worker for worker in turns if plan.take(worker) == 30)
    other = "b" if ender == "a" else "a"

    assert 0 < 2 * len(plan) <= 9
    assert plan.take(ender) is None
    assert len(everything(plan, other)) in (3, 4)


def test_one_worker_alone_goes_by_turns() -> None:
    plan = plan_for("a", works(("x", 90, BARE), ("x", 1, GUEST), ("y", 1, GUEST)))

    assert everything(plan, "a") == [1, 2, 0]


def test_nobody_comes_back_to_a_module_for_an_earlier_turn_while_others_can() -> None:
    plan = plan_for("ab", works(*[("x", 9, GUEST)] * 20, ("x", 1, BARE)))

    assert plan.take("a") == 0
    assert plan.take("b") == 20
    assert plan.take("b") is None


def test_a_lane_belongs_to_one_worker_until_that_is_gone() -> None:
    here = [Shared(name, 1, lane="devices") for name in ("guest", "bare")]
    plan = plan_for("ab", works(("x", 9, here[0]), ("y", 9, here[1]), ("z", 1, None)))

    assert [plan.take("a"), plan.take("b"), plan.take("b")] == [0, 2, None]
    plan.leave("a")
    assert plan.take("b") == 1


def test_tests_that_did_not_run_are_given_to_others() -> None:
    plan = plan_for("ab", works(("x", 1, None), ("y", 1, None)))
    assert everything(plan, "a") == [0, 1]

    plan.leave("a")
    plan.give_back([1])

    assert everything(plan, "b") == [1]


def test_a_worker_is_let_go_with_a_test_that_outlasts_the_rest() -> None:
    plan = plan_for("ab", works(("x", 20, None), ("y", 5, None), ("y", 6, None), ("y", 7, None)))
    assert [plan.take("a"), plan.take("b")] == [0, 3]

    assert plan.can_spare("a", 0, elsewhere=[3])
    assert not plan.can_spare("b", 3, elsewhere=[0])


def test_nobody_is_let_go_for_a_guess_or_with_a_lane_or_alone() -> None:
    guess = Work(0, "x", 20, is_known=False)
    lane = Work(0, "x", 20, True, Shared("guest", 1, lane="devices"))
    known = Work(0, "x", 20, True)
    for work, workers in ((guess, "ab"), (lane, "ab"), (known, "a")):
        plan = plan_for(workers, [work, Work(1, "x", 1, True)])
        plan.take("a")

        assert not plan.can_spare("a", 0, elsewhere=[])


THINGS = [None, GUEST, BARE, Shared("guest", 15, turn=0), Shared("held", 2, lane="devices")]
TESTS = st.lists(
    st.tuples(st.sampled_from("xyz"), st.floats(0, 100), st.sampled_from(THINGS)), max_size=40
)


@pytest.mark.parametrize("workers", ["a", "ab", "abcd"])
@given(tests=TESTS, chance=st.randoms(use_true_random=False))
def test_each_test_is_given_until_it_ran_whoever_asks_and_goes(
    workers: str, tests: list[tuple[str, float, Shared | None]], chance: random.Random
) -> None:
    plan = plan_for(workers, works(*tests))
    up, ran = list(workers), []
    while len(plan):
        worker = chance.choice(up)
        index = plan.take(worker)
        if index is None:
            assert len(up) > 1, f"{len(plan)} tests are given to nobody"
            up.remove(worker)
            plan.leave(worker)
        elif chance.random() < 0.1:
            plan.give_back([index])
        else:
            ran.append(index)

    assert sorted(ran) == list(range(len(tests)))
