"""Rules and verdicts: how phases join, and when a rule counts as shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.rule import Rule, RuleClass, RuleState, Verdict, overall, state_of

PASS, FAIL, ERROR, SKIP = Verdict.PASS, Verdict.FAIL, Verdict.ERROR, Verdict.SKIP

SUITE, PURE, CONTROL = "suites/a.py::t", "tests/a.py::t", "suites/a.py::control"
IS_SUITE = {SUITE: True, PURE: False, CONTROL: True}


def rule(classification: RuleClass = RuleClass.SUITE) -> Rule:
    return Rule("MAP-02", "C", "s", "src", "all", ("S",), (), "S", "", classification)


@pytest.mark.parametrize(
    ("first", "later", "joined"),
    [
        (PASS, PASS, PASS),
        (FAIL, ERROR, FAIL),
        (ERROR, FAIL, ERROR),
        (PASS, ERROR, ERROR),
        (SKIP, PASS, SKIP),
        (PASS, SKIP, SKIP),
        (SKIP, ERROR, ERROR),
    ],
)
def test_the_first_problem_of_a_test_is_its_verdict(
    first: Verdict, later: Verdict, joined: Verdict
) -> None:
    assert first.then(later) is joined


@given(st.lists(st.sampled_from(Verdict), min_size=1))
def test_a_rule_fails_as_soon_as_one_of_its_tests_does(verdicts: list[Verdict]) -> None:
    assert (overall(verdicts) is FAIL) == (FAIL in verdicts)


def test_a_skipped_test_does_not_hide_a_passed_one() -> None:
    assert overall([SKIP, PASS]) is PASS
    assert overall([SKIP]) is SKIP
    assert overall([]) is None


@pytest.mark.parametrize(
    ("tests", "controls", "verdicts", "state"),
    [
        ([], [], {}, RuleState.UNCOVERED),
        ([], [CONTROL], {CONTROL: PASS}, RuleState.UNCOVERED),
        ([SUITE], [CONTROL], {}, RuleState.NOT_RUN),
        ([SUITE], [CONTROL], {SUITE: PASS}, RuleState.EXECUTED),
        ([SUITE], [], {SUITE: PASS}, RuleState.CONTROL_MISSING),
        ([SUITE], [CONTROL], {SUITE: PASS, CONTROL: FAIL}, RuleState.CONTROL_MISSING),
        ([SUITE], [CONTROL], {SUITE: PASS, CONTROL: SKIP}, RuleState.CONTROL_MISSING),
        ([SUITE], [CONTROL], {SUITE: FAIL}, RuleState.FAILED),
        ([SUITE], [CONTROL], {SUITE: ERROR}, RuleState.ERROR),
        ([SUITE], [CONTROL], {SUITE: SKIP}, RuleState.SKIPPED),
        ([PURE], [], {}, RuleState.PURE),
        ([PURE], [], {PURE: FAIL}, RuleState.FAILED),
        ([PURE, SUITE], [CONTROL], {PURE: PASS}, RuleState.EXECUTED),
    ],
)
def test_the_state_follows_from_tests_controls_and_verdicts(
    tests: list[str], controls: list[str], verdicts: dict[str, Verdict], state: RuleState
) -> None:
    assert state_of(rule(), tests, controls, verdicts, is_suite=IS_SUITE) is state


def test_a_rule_that_no_program_can_check_needs_no_test() -> None:
    documentation = rule(RuleClass.DOCUMENTATION)

    assert state_of(documentation, [], [], {}, is_suite={}) is RuleState.DOCUMENTATION


@pytest.mark.parametrize(
    ("tests", "verdicts", "state"),
    [
        ([], {}, RuleState.UNCOVERED),
        ([SUITE], {}, RuleState.HARDWARE),
        ([SUITE], {SUITE: SKIP}, RuleState.HARDWARE),
        ([SUITE], {SUITE: PASS}, RuleState.EXECUTED),
        ([SUITE], {SUITE: FAIL}, RuleState.FAILED),
        ([SUITE], {SUITE: ERROR}, RuleState.ERROR),
    ],
)
def test_a_rule_of_hardware_has_a_test_that_skips_where_there_is_none(
    tests: list[str], verdicts: dict[str, Verdict], state: RuleState
) -> None:
    found = state_of(rule(RuleClass.HARDWARE), tests, [CONTROL], verdicts, is_suite=IS_SUITE)

    assert found is state


def test_the_series_is_the_letters_of_the_id() -> None:
    assert rule().series == "MAP"
