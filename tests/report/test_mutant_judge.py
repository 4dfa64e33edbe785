"""Whether a mutant was noticed, and by whom."""

from __future__ import annotations

import pytest

from harness.model.rule import Verdict
from harness.report.mutant_judge import Notice, baseline_problem, judge
from harness.report.results import Result


def result(verdict: Verdict, *rules: str, name: str = "t", message: str = "") -> Result:
    return Result(f"suites/a.py::{name}", verdict, 1.0, rules=rules, message=message)


def test_a_failed_test_of_the_rule_notices() -> None:
    judged = judge("m", ["MAP-02"], [result(Verdict.FAIL, "MAP-02", "NM-08")], 3.0)

    assert (judged.notice, judged.is_fine, judged.seconds) == (Notice.NOTICED, True, 3.0)
    assert judged.line() == "noticed by MAP-02 (and NM-08)"


def test_one_failed_test_of_several_of_a_rule_is_enough() -> None:
    results = [result(Verdict.PASS, "MAP-02"), result(Verdict.FAIL, "MAP-02")]

    assert judge("m", ["MAP-02"], results).is_fine


def test_every_rule_must_trip() -> None:
    results = [result(Verdict.FAIL, "MAP-02"), result(Verdict.PASS, "TRP-09")]

    judged = judge("m", ["MAP-02", "TRP-09"], results)

    assert (judged.notice, judged.is_fine) == (Notice.IN_PART, False)
    assert judged.line() == "noticed in part by MAP-02, not by TRP-09"


def test_other_rules_alone_are_not_what_was_asked_for() -> None:
    judged = judge("m", ["MAP-02"], [result(Verdict.FAIL, "TRP-01"), result(Verdict.PASS)])

    assert (judged.notice, judged.is_fine) == (Notice.ELSEWHERE, False)
    assert judged.line() == "noticed by other rules only, not by MAP-02 (and TRP-01)"


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.SKIP])
def test_a_mutant_that_nobody_minds_is_not_noticed(verdict: Verdict) -> None:
    judged = judge("m", ["MAP-02"], [result(verdict, "MAP-02"), result(Verdict.PASS)])

    assert (judged.notice, judged.line()) == (Notice.NOT, "NOT NOTICED, not by MAP-02")


def test_a_negative_control_that_fails_counts_for_no_rule() -> None:
    control = Result("suites/a.py::c", Verdict.FAIL, 1.0, controls=("MAP-02",))

    assert judge("m", ["MAP-02"], [control]).notice is Notice.ELSEWHERE


def test_broken_tests_find_nothing_out() -> None:
    results = [result(Verdict.ERROR, "MAP-02", message="QEMU ended\nsee there")]

    judged = judge("m", ["MAP-02"], results)

    assert (judged.notice, judged.message) == (Notice.ERROR, "QEMU ended")
    assert judged.broken == ("suites/a.py::t",)


@pytest.mark.parametrize("results", [[], [result(Verdict.SKIP, "MAP-02")]])
def test_without_a_test_that_ran_nothing_was_found_out(results: list[Result]) -> None:
    assert judge("m", ["MAP-02"], results).notice is Notice.ERROR


def test_a_failure_counts_although_another_test_broke() -> None:
    results = [result(Verdict.ERROR, "MAP-01"), result(Verdict.FAIL, "MAP-02")]

    assert judge("m", ["MAP-02"], results).is_fine


def test_a_baseline_passes_or_skips() -> None:
    assert not baseline_problem([result(Verdict.PASS), result(Verdict.SKIP)])


@pytest.mark.parametrize(
    ("results", "problem"),
    [
        ([], "no test passed"),
        ([result(Verdict.SKIP)], "no test passed"),
        ([result(Verdict.PASS), result(Verdict.FAIL, message="no\nrows")], "suites/a.py::t: no"),
        (
            [result(Verdict.ERROR, message="a"), result(Verdict.FAIL, message="b")],
            "suites/a.py::t: a (and 1 more)",
        ),
    ],
)
def test_a_baseline_that_is_none_says_why(results: list[Result], problem: str) -> None:
    assert baseline_problem(results) == problem
