"""From an exception to a verdict."""

from __future__ import annotations

import pytest

from harness.errors import HostError, WaitTimeout
from harness.model.rule import Verdict
from harness.report.verdict import of_parts, verdict_of_exception, verdict_of_phase


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (AssertionError("page 3"), Verdict.FAIL),
        (pytest.fail.Exception("words"), Verdict.FAIL),
        (ExceptionGroup("both", [AssertionError(), AssertionError()]), Verdict.FAIL),
        (ExceptionGroup("mixed", [AssertionError(), HostError("x")]), Verdict.ERROR),
        (pytest.fail.Exception("Timeout (>3.0s) from pytest-timeout."), Verdict.ERROR),
        (HostError("x"), Verdict.ERROR),
        (WaitTimeout("x"), Verdict.ERROR),
        (KeyError("x"), Verdict.ERROR),
    ],
)
def test_only_an_assertion_says_that_the_subject_is_wrong(
    error: BaseException, verdict: Verdict
) -> None:
    assert verdict_of_exception(error) is verdict


@pytest.mark.parametrize(
    ("when", "outcome", "attached", "is_part", "verdict"),
    [
        ("call", "passed", None, False, Verdict.PASS),
        ("call", "passed", "error", False, Verdict.ERROR),
        ("call", "passed", "error", True, Verdict.PASS),
        ("call", "failed", None, False, Verdict.FAIL),
        ("setup", "failed", None, False, Verdict.ERROR),
        ("???", "failed", None, False, Verdict.ERROR),
        ("setup", "skipped", None, False, Verdict.SKIP),
    ],
)
def test_a_phase_without_word_from_the_plugin_is_judged_by_where_it_failed(
    when: str, outcome: str, attached: str | None, is_part: bool, verdict: Verdict
) -> None:
    assert verdict_of_phase(when, outcome, attached, is_part=is_part) is verdict


def test_one_part_that_fails_makes_the_test_fail() -> None:
    assert of_parts([Verdict.ERROR, Verdict.FAIL]) is Verdict.FAIL
    assert of_parts([Verdict.ERROR]) is Verdict.ERROR
