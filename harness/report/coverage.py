"""What covers a rule, and what runs say of it together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.model.rule import Rule, RuleState, Verdict, overall, state_of
from harness.report.compare import Comparison, Row


@dataclass(frozen=True, slots=True)
class ControlResult:
    """A negative control, and what it said."""

    nodeid: str
    verdict: Verdict | None
    """None: it was in no run."""
    said: tuple[str, ...]
    """What the check said of each subject that breaks the rule; the reason it did not pass."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """One rule, the tests that cite it, and what the runs that count say of it."""

    rule: Rule
    state: RuleState
    tests: tuple[str, ...]
    negative_controls: tuple[str, ...]
    last_verdict: Verdict | None
    """Of all its tests in all runs; None if no run has one."""
    runs: tuple[int, ...] = ()
    """By number, the runs in which a test of it gave that verdict."""
    reasons: tuple[str, ...] = ()
    """Why it is not executed: what its tests said in these runs, or why it can have none."""
    controls: tuple[ControlResult, ...] = ()


def cover(
    rule: Rule,
    tests: Iterable[str],
    controls: Iterable[str],
    found: Comparison,
    *,
    is_suite: Mapping[str, bool],
) -> Coverage:
    """Join one rule with its tests and what the runs say of them.

    A run that could do more says more: of a test that one run skips and another passes, the
    other counts. A failure anywhere counts before all else.

    :param tests: node ids of the tests that cite it.
    :param controls: node ids of the tests that show its check can fail.
    :param found: the runs that count, none or more.
    :param is_suite: as for `state_of`.
    """
    tests, controls = tuple(tests), tuple(controls)
    known = [found.rows[test] for test in (*tests, *controls) if test in found.rows]
    verdicts = {row.nodeid: row.overall for row in known if row.overall is not None}
    verdict = overall(verdicts[test] for test in tests if test in verdicts)
    state = state_of(rule, tests, controls, verdicts, is_suite=is_suite)
    of_tests = [row for row in known if row.nodeid in tests]
    return Coverage(
        rule=rule,
        state=state,
        tests=tests,
        negative_controls=controls,
        last_verdict=verdict,
        runs=tuple(sorted({number for row in of_tests for number in row.runs_with(verdict)})),
        reasons=tuple(dict.fromkeys(_reasons(rule, state, of_tests, verdict))),
        controls=tuple(_control(name, found.rows.get(name)) for name in controls),
    )


def _reasons(
    rule: Rule, state: RuleState, tests: Iterable[Row], verdict: Verdict | None
) -> Iterator[str]:
    if state is RuleState.DOCUMENTATION:
        yield rule.check
    for row in tests if verdict is not Verdict.PASS else ():
        for number in row.runs_with(verdict):
            one = row.results[number]
            if one is not None and one.first_line:
                yield one.first_line


def _control(nodeid: str, row: Row | None) -> ControlResult:
    if row is None:
        return ControlResult(nodeid, None, ())
    verdict = row.overall
    said: dict[str, None] = {}
    for number in row.runs_with(verdict):
        if (one := row.results[number]) is not None:
            said |= dict.fromkeys(one.said if verdict is Verdict.PASS else (one.first_line,))
    return ControlResult(nodeid, verdict, tuple(said))
