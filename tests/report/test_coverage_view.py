"""What covers the rules, as it is shown."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from harness.model.rule import Rule, RuleState, Verdict
from harness.report.compare import Comparison, compare
from harness.report.coverage import ControlResult, Coverage
from harness.report.coverage_view import (
    as_json,
    as_table,
    controls_lines,
    counts_line,
    reasons_lines,
)
from harness.report.past_run import PastRun

RULE = Rule("MAP-02", "C", "the table is i/o", "src", "all", ("S",), (), "S")
EXECUTED = Coverage(
    RULE,
    RuleState.EXECUTED,
    ("a.py::t",),
    ("a.py::c",),
    Verdict.PASS,
    (1,),
    (),
    (ControlResult("a.py::c", Verdict.PASS, ("page 3 is direct",)),),
)
SKIPPED = Coverage(
    RULE, RuleState.SKIPPED, ("a.py::t",), (), Verdict.SKIP, (0, 1), ("no igb", "b", "c", "d")
)
UNCOVERED = Coverage(RULE, RuleState.UNCOVERED, (), (), None)


def runs(number: int) -> Comparison:
    return compare([PastRun(Path(f"/results/{n}"), {}) for n in range(number)])


def table(*covered: Coverage, of: Comparison) -> list[list[str]]:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(as_table(covered, of))
    return [line.split() for line in console.export_text().splitlines()]


def test_with_one_run_the_table_does_not_say_which() -> None:
    heads, row = table(EXECUTED, of=runs(1))

    assert heads == ["rule", "state", "last", "tests", "controls", "statement"]
    assert row == ["MAP-02", "executed", "pass", "1", "1", *RULE.statement.split()]


def test_with_several_it_says_which_gave_the_verdict() -> None:
    heads, first, second = table(EXECUTED, SKIPPED, of=runs(2))

    assert heads[3] == "run"
    assert first[:4] == ["MAP-02", "executed", "pass", "B"]
    assert second[:5] == ["MAP-02", "skipped", "skip", "A", "B"]


def test_rules_that_are_not_executed_say_why() -> None:
    assert list(reasons_lines([EXECUTED, SKIPPED, UNCOVERED, SKIPPED], runs(2))) == [
        "MAP-02 MAP-02 (skipped in A B)",
        "  no igb",
        "  b",
        "  c",
        "  and 1 more reasons: trapline rules MAP-02 --json has all",
    ]


def test_with_one_run_the_reasons_do_not_say_which() -> None:
    once = replace(SKIPPED, runs=(0,))

    assert next(reasons_lines([once], runs(1))) == "MAP-02 (skipped)"


def test_a_rule_without_verdict_has_no_run() -> None:
    assert table(UNCOVERED, of=runs(2))[1][:6] == ["MAP-02", "uncovered", "-", "-", "0", "0"]


def test_json_has_exactly_the_promised_keys() -> None:
    objects = json.loads(as_json([EXECUTED, UNCOVERED], runs(2)))

    assert [list(one) for one in objects] == [
        [
            "id", "statement", "source", "applicability",
            "state", "tests", "negative_controls", "last_verdict", "runs", "reasons",
        ]
    ] * 2  # fmt: skip
    assert objects[0]["runs"] == ["/results/1"]
    assert (objects[1]["last_verdict"], objects[1]["runs"]) == (None, [])


def test_json_has_all_reasons() -> None:
    (found,) = json.loads(as_json([SKIPPED], runs(2)))

    assert found["reasons"] == ["no igb", "b", "c", "d"]


def test_controls_come_with_what_they_said() -> None:
    assert list(controls_lines([EXECUTED, UNCOVERED])) == [
        "MAP-02 (executed): the table is i/o",
        "  pass: a.py::c",
        "    said: page 3 is direct",
    ]


def test_the_last_line_counts_states() -> None:
    found = counts_line([EXECUTED, EXECUTED, UNCOVERED])

    assert found == "3 rules: 2 executed, 1 uncovered"
    assert counts_line([]) == "0 rules: none"
