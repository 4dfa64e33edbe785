"""Results of the kernel's own tests: KTAP, and the TAP 13 that its harness in C prints.

Documentation/dev-tools/ktap.rst; ``tools/testing/selftests/kselftest.h`` and
``kselftest_harness.h`` for what programs print.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass

from harness.errors import ParseError

_VERSION = re.compile(r"(?:TAP version 13|KTAP version 1)\s*$")
_PLAN = re.compile(r"1\.\.(\d+)")
_RESULT = re.compile(r"(not )?ok (\d+)(?: (?:- )?(.*?))??(?:\s*# ([A-Z]{4,5}|error)\b ?(.*))?$")
_BAIL = re.compile(r"Bail out!\s*(.*)")


class Outcome(enum.Enum):
    """What became of a test."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"
    XFAIL = "xfail"
    """Failed as was expected: a known lack."""


@dataclass(frozen=True, slots=True)
class KtapResult:
    """One test."""

    number: int
    name: str
    outcome: Outcome
    reason: str = ""
    """What its directive says: why it was skipped."""
    said: tuple[str, ...] = ()
    """Lines printed since the result before."""

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.name}: {self.outcome.value}{reason}"


@dataclass(frozen=True, slots=True)
class KtapReport:
    """What one program said of its tests."""

    planned: int | None
    """How many tests there are; None if it did not say."""
    results: tuple[KtapResult, ...]
    bail: str = ""
    """Why it gave up before the end."""

    @property
    def missing(self) -> int:
        """Return how many of the planned tests have no result."""
        return max((self.planned or 0) - len(self.results), 0)

    def of(self, outcome: Outcome) -> tuple[KtapResult, ...]:
        """Return the results with this outcome."""
        return tuple(one for one in self.results if one.outcome is outcome)

    @property
    def timed_out(self) -> tuple[KtapResult, ...]:
        """Return those that ``kselftest_harness.h`` ended: they took longer than it allows."""
        late = "Test terminated by timeout"
        failed = self.of(Outcome.FAIL)
        return tuple(one for one in failed if any(late in line for line in one.said))

    def problems(self) -> list[str]:
        """Return what keeps this from being a pass; skipped tests do not."""
        found = [f"{one}\n    " + "\n    ".join(one.said[-8:]) for one in self.of(Outcome.FAIL)]
        if self.bail:
            found.append(f"it gave up: {self.bail}")
        if self.missing:
            found.append(f"{self.missing} of {self.planned} tests have no result")
        if not self.results:
            found.append("no test has a result")
        return found


def parse_ktap(text: str) -> KtapReport:
    """Read the results at the top level; those of nested levels are part of what a test said.

    Lines that are neither are kept with the next result: programs print what they like.

    :raise ParseError: no line of a version, results that are not numbered from 1, or two plans.
    """
    lines = text.splitlines()
    start = next((at for at, line in enumerate(lines) if _VERSION.match(line)), None)
    if start is None:
        raise ParseError(
            "no results: neither 'TAP version 13' nor 'KTAP version 1'",
            text=text[-400:], where="ktap",
        )  # fmt: skip
    planned: int | None = None
    results: list[KtapResult] = []
    said: list[str] = []
    for line in lines[start + 1 :]:
        if match := _RESULT.match(line):
            results.append(_result(match, len(results) + 1, said))
            said = []
        elif match := _PLAN.match(line):
            if planned is not None:
                raise ParseError("a second plan", text=line, where="ktap")
            planned = int(match[1])
        elif match := _BAIL.match(line):
            return KtapReport(planned, tuple(results), match[1] or "without a reason")
        else:
            said.append(line)
    return KtapReport(planned, tuple(results))


def render_ktap(results: Iterable[KtapResult]) -> str:
    """Print results as a program would."""
    lines = ["TAP version 13"]
    words = {Outcome.SKIP: " # SKIP", Outcome.XFAIL: " # XFAIL"}
    found = list(results)
    lines.append(f"1..{len(found)}")
    for one in found:
        lines += one.said
        directive = f"{words[one.outcome]} {one.reason}".rstrip() if one.outcome in words else ""
        status = "not ok" if one.outcome is Outcome.FAIL else "ok"
        lines.append(f"{status} {one.number} {one.name}{directive}")
    return "\n".join(lines) + "\n"


def _result(match: re.Match[str], expected: int, said: list[str]) -> KtapResult:
    number = int(match[2])
    if number != expected:
        raise ParseError(
            f"result {number} where result {expected} should be", text=match[0], where="ktap"
        )
    outcome = Outcome.FAIL if match[1] else Outcome.PASS
    if match[4] in ("SKIP", "XFAIL"):
        outcome = Outcome(match[4].lower())
    elif match[4] == "error":
        outcome = Outcome.FAIL
    return KtapResult(
        number, (match[3] or "").strip(), outcome, (match[5] or "").strip(), tuple(said)
    )
