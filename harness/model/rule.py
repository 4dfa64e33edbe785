"""Rules, verdicts, and what is known about a rule after a run."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


class Verdict(enum.StrEnum):
    """What a test says. The four never mix."""

    PASS = "pass"
    FAIL = "fail"
    """The subject is wrong."""
    ERROR = "error"
    """The harness or the lab is wrong; nothing is known about the subject."""
    SKIP = "skip"
    """A requirement is missing."""

    @property
    def is_problem(self) -> bool:
        """Say whether somebody has to look at it."""
        return self in (Verdict.FAIL, Verdict.ERROR)

    def then(self, later: Verdict) -> Verdict:
        """Join with the verdict of a *later* phase of the same test.

        The first problem stays: what goes wrong after it is often its consequence. A test
        that was skipped half way has not shown what it set out to show.
        """
        if self.is_problem:
            return self
        if later.is_problem:
            return later
        return Verdict.SKIP if Verdict.SKIP in (self, later) else Verdict.PASS


class RuleClass(enum.StrEnum):
    """Where a rule can be decided."""

    SUITE = "suite"
    """By a suite test on a virtual or physical host: the usual case."""
    PURE = "pure"
    """By a function of the harness alone."""
    HARDWARE = "hardware"
    """Only on hardware that no virtual host stands in for."""
    DOCUMENTATION = "documentation"
    """Not by a program."""


class RuleState(enum.StrEnum):
    """What the tests, and the runs that count, say about one rule."""

    EXECUTED = "executed"
    """A test of it passed, none failed, and a negative control holds the check to account."""
    CONTROL_MISSING = "control-missing"
    """A test passed, but none shows that its check can fail, or those that should did not."""
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"
    """Every test of it that was in a run was skipped."""
    NOT_RUN = "not-run"
    """It has tests; none was in a run."""
    PURE = "pure"
    """Checked by the harness's own tests only (parsers, models), none of which failed."""
    HARDWARE = "hardware"
    """It has tests, which skip and say which hardware they need, or were in no run."""
    DOCUMENTATION = "documentation"
    """No test, and there can be none; its check says why."""
    UNCOVERED = "uncovered"
    """No test."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One checkable sentence of the catalogue."""

    id: str
    """``MAP-02``: series and number."""
    section: str
    """Letter of the catalogue section."""
    statement: str
    source: str
    """Where the sentence comes from; ``[V]`` marks what was observed."""
    applies: str
    """Versions, devices or configurations it holds for."""
    kinds: tuple[str, ...]
    """``S`` static, ``B`` behavioural, ``N`` negative test, ``H`` state of the host."""
    procedures: tuple[str, ...]
    """Named procedures of the check: ``P-TRAP``, ``P-TRC``, …"""
    check: str
    """How to check it, as the catalogue says it."""
    group: str = ""
    """Heading within the section, if any."""
    classification: RuleClass = RuleClass.SUITE

    @property
    def series(self) -> str:
        """The letters of the id: ``MAP``."""
        return self.id.rpartition("-")[0]


def overall(verdicts: Iterable[Verdict]) -> Verdict | None:
    """Return the verdict of a rule from those of its tests, None if there are none.

    One failure makes it fail; a skipped test beside a passed one does not count. The same
    holds for the verdicts of one test in several runs.
    """
    found = set(verdicts)
    for verdict in (Verdict.FAIL, Verdict.ERROR, Verdict.PASS, Verdict.SKIP):
        if verdict in found:
            return verdict
    return None


def state_of(
    rule: Rule,
    tests: Iterable[str],
    controls: Iterable[str],
    verdicts: Mapping[str, Verdict],
    *,
    is_suite: Mapping[str, bool],
) -> RuleState:
    """Decide the state of *rule*.

    :param tests: node ids of the tests that cite it.
    :param controls: node ids of the tests that show its check can fail.
    :param verdicts: node id to verdict in the runs that count.
    :param is_suite: node id to whether it belongs to a suite (not to the harness's own tests).
    """
    tests, controls = tuple(tests), tuple(controls)
    if not tests:
        is_text = rule.classification is RuleClass.DOCUMENTATION
        return RuleState.DOCUMENTATION if is_text else RuleState.UNCOVERED
    verdict = overall(verdicts[test] for test in tests if test in verdicts)
    if verdict is Verdict.FAIL:
        return RuleState.FAILED
    if verdict is Verdict.ERROR:
        return RuleState.ERROR
    if not any(is_suite[test] for test in tests):
        return RuleState.PURE
    if verdict is Verdict.PASS:
        held = overall(verdicts[test] for test in controls if test in verdicts)
        is_held = bool(controls) and held in (Verdict.PASS, None)
        return RuleState.EXECUTED if is_held else RuleState.CONTROL_MISSING
    if rule.classification is RuleClass.HARDWARE:
        return RuleState.HARDWARE
    return RuleState.NOT_RUN if verdict is None else RuleState.SKIPPED
