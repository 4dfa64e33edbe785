"""What covers a rule, and what several runs say of it together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.model.rule import Rule, RuleClass, RuleState, Verdict
from harness.report.compare import compare
from harness.report.coverage import Coverage, cover
from harness.report.past_run import PastRun
from harness.report.results import Result

T, U, CONTROL = "suites/a.py::t", "suites/a.py::u", "suites/a.py::control"

OLD_KERNEL = {T: "skip: no /dev/iommu", U: "skip: no sample mtty", CONTROL: "pass: noticed"}
NEW_KERNEL = {T: "pass", U: "skip: QEMU 11.0 would enable this", CONTROL: "skip: no KVM"}


def run(said: Mapping[str, str]) -> PastRun:
    """A run whose tests said this: a verdict, and its words."""
    results = {}
    for name, text in said.items():
        verdict, _, message = text.partition(": ")
        heard = (message,) if verdict == "pass" and message else ()
        results[name] = Result(name, Verdict(verdict), 1.0, message=message, said=heard)
    return PastRun(Path("/r"), results)


def covered(
    *runs: Mapping[str, str], classification: RuleClass = RuleClass.SUITE, check: str = "S"
) -> Coverage:
    rule = Rule("MAP-02", "C", "s", "src", "all", (), (), check, "", classification)
    tests = () if classification is RuleClass.DOCUMENTATION else (T, U)
    found = compare([run(said) for said in runs])
    return cover(rule, tests, (CONTROL,), found, is_suite={T: True, U: True, CONTROL: True})


def test_without_a_run_nothing_is_said() -> None:
    found = covered()

    assert (found.state, found.last_verdict) == (RuleState.NOT_RUN, None)
    assert (found.runs, found.reasons) == ((), ())


def test_the_run_that_could_counts() -> None:
    found = covered(OLD_KERNEL, NEW_KERNEL)

    assert (found.state, found.last_verdict) == (RuleState.EXECUTED, Verdict.PASS)
    assert (found.runs, found.reasons) == ((1,), ())


def test_the_control_may_have_run_elsewhere() -> None:
    found = covered(OLD_KERNEL, NEW_KERNEL)

    assert found.controls[0].verdict is Verdict.PASS
    assert found.controls[0].said == ("noticed",)


def test_a_control_that_no_run_could_do_shows_nothing() -> None:
    assert covered(NEW_KERNEL).state is RuleState.CONTROL_MISSING


@pytest.mark.parametrize("order", [1, -1])
def test_a_failure_in_any_run_counts_before_all_else(order: int) -> None:
    runs = [{T: "pass"}, {T: "error: died"}, {T: "fail: page 3 is direct"}]

    found = covered(*runs[::order])

    assert (found.state, found.reasons) == (RuleState.FAILED, ("page 3 is direct",))
    assert [runs[::order][number] for number in found.runs] == [runs[2]]


def test_an_error_counts_before_what_passed() -> None:
    found = covered({T: "pass"}, {T: "error: died"})

    assert (found.state, found.runs, found.reasons) == (RuleState.ERROR, (1,), ("died",))


def test_skipped_everywhere_it_says_all_that_would_enable_it() -> None:
    found = covered(OLD_KERNEL, OLD_KERNEL, {T: "skip: no igb"})

    assert (found.state, found.runs) == (RuleState.SKIPPED, (0, 1, 2))
    assert found.reasons == ("no /dev/iommu", "no igb", "no sample mtty")


def test_a_rule_of_hardware_says_which() -> None:
    found = covered({T: "skip: needs a C62x"}, classification=RuleClass.HARDWARE)

    assert (found.state, found.reasons) == (RuleState.HARDWARE, ("needs a C62x",))


def test_a_rule_that_no_program_can_check_says_why() -> None:
    found = covered(classification=RuleClass.DOCUMENTATION, check="for who reads the notes")

    assert (found.state, found.reasons) == (RuleState.DOCUMENTATION, ("for who reads the notes",))
