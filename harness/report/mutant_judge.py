"""Did the suites notice a mutant, and by the right rule? Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.model.rule import Verdict
from harness.report.results import Result


class Notice(StrEnum):
    """What became of a mutant."""

    NOTICED = "noticed"
    """Of every rule that must trip a test failed."""
    IN_PART = "noticed in part"
    """Some of the rules that must trip did not."""
    ELSEWHERE = "noticed by other rules only"
    NOT = "NOT NOTICED"
    """All that was run passed."""
    ERROR = "error"
    """No QEMU came out of it, or the tests broke instead of failing: nothing was found out."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One mutant, after its tests."""

    name: str
    notice: Notice
    tripped: tuple[str, ...] = ()
    """Rules that must trip and did."""
    missed: tuple[str, ...] = ()
    """Rules that must trip and did not."""
    others: tuple[str, ...] = ()
    """Further rules of tests that failed."""
    failed: tuple[str, ...] = ()
    """Node ids of the tests that failed."""
    broken: tuple[str, ...] = ()
    """Node ids of tests that ended in an error."""
    passed: int = 0
    skipped: int = 0
    message: str = ""
    """What the first failure or error said."""
    seconds: float = 0.0
    """From its build to its verdict."""

    @property
    def is_fine(self) -> bool:
        """Say whether the suites did what they are for."""
        return self.notice is Notice.NOTICED

    def line(self) -> str:
        """Return the verdict for people."""
        text = str(self.notice)
        if self.tripped:
            text += f" by {', '.join(self.tripped)}"
        if self.missed:
            text += f", not by {', '.join(self.missed)}"
        if self.others:
            text += f" (and {', '.join(self.others)})"
        return text


def judge(
    name: str, rules: Collection[str], results: Sequence[Result], seconds: float = 0.0
) -> Judgement:
    """Return what *results*, of tests run on the mutant *name*, say of it.

    A negative control that fails counts for no rule: it shows that a check is weak, not that
    a rule is broken.

    :param rules: those that must trip.
    """
    failed = [one for one in results if one.verdict is Verdict.FAIL]
    broken = [one for one in results if one.verdict is Verdict.ERROR]
    found = {rule for one in failed for rule in one.rules}
    tripped = tuple(rule for rule in rules if rule in found)
    missed = tuple(rule for rule in rules if rule not in found)
    passed = sum(one.verdict is Verdict.PASS for one in results)
    return Judgement(
        name=name,
        notice=_notice(tripped, missed, bool(failed), bool(broken) or not passed + len(failed)),
        tripped=tripped,
        missed=missed,
        others=tuple(sorted(found.difference(rules))),
        failed=tuple(one.nodeid for one in failed),
        broken=tuple(one.nodeid for one in broken),
        passed=passed,
        skipped=sum(one.verdict is Verdict.SKIP for one in results),
        message=next((one.first_line for one in [*failed, *broken]), ""),
        seconds=seconds,
    )


def _notice(
    tripped: Collection[str], missed: Collection[str], failed: bool, is_broken: bool
) -> Notice:
    if tripped:
        return Notice.IN_PART if missed else Notice.NOTICED
    if failed:
        return Notice.ELSEWHERE
    return Notice.ERROR if is_broken else Notice.NOT


def baseline_problem(results: Iterable[Result]) -> str:
    """Return why the unbroken build is no baseline, empty if it is one.

    It must pass all that the mutants are judged by; skips show nothing.
    """
    found = list(results)
    wrong = [one for one in found if one.verdict.is_problem]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return f"{wrong[0].nodeid}: {wrong[0].first_line}{more}"
    if not any(one.verdict is Verdict.PASS for one in found):
        return "no test passed"
    return ""
