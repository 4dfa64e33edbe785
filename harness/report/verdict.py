"""From what ended a test to one of the four verdicts, and the text a reader wants first."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import pytest

from harness.errors import HarnessError
from harness.model.rule import Verdict
from harness.report.rundir import RunDirectory
from harness.report.space import is_full

_TIMED_OUT = "from pytest-timeout"
_ATTRIBUTE = "verdict"


def verdict_of_exception(error: BaseException) -> Verdict:
    """Return what *error* means when it ends the body of a test.

    Only an assertion (or ``pytest.fail``) says something about the subject. A test that
    pytest-timeout stopped says nothing about it: the harness should have noticed first.
    """
    if isinstance(error, pytest.skip.Exception):
        return Verdict.SKIP
    if isinstance(error, BaseExceptionGroup):
        leaves = {verdict_of_exception(inner) for inner in error.exceptions}
        return Verdict.FAIL if leaves == {Verdict.FAIL} else Verdict.ERROR
    if isinstance(error, AssertionError):
        return Verdict.FAIL
    if isinstance(error, pytest.fail.Exception) and _TIMED_OUT not in str(error):
        return Verdict.FAIL
    return Verdict.ERROR


def attach(report: pytest.TestReport, verdict: Verdict) -> None:
    """Keep *verdict* with the report; it travels to the controller and the report log."""
    report.__dict__[_ATTRIBUTE] = str(verdict)


def verdict_of(report: pytest.TestReport) -> Verdict:
    """Return the verdict of one report (one phase of one test)."""
    is_part = isinstance(report, pytest.SubtestReport)
    return verdict_of_phase(
        report.when, report.outcome, report.__dict__.get(_ATTRIBUTE), is_part=is_part
    )


def verdict_of_phase(
    when: str | None, outcome: str, attached: object, *, is_part: bool = False
) -> Verdict:
    """Return the verdict from the plain values of a report.

    :param attached: what `attach` put there, if anything.
    :param is_part: it is the report of a subtest, which knows nothing about its siblings.
    """
    if attached and not (is_part and outcome != "failed"):
        return Verdict(str(attached))
    if outcome == "failed":
        return Verdict.FAIL if when == "call" else Verdict.ERROR
    return Verdict.SKIP if outcome == "skipped" else Verdict.PASS


def of_parts(parts: Collection[Verdict]) -> Verdict:
    """Return the verdict of a test body from those of the subtests that went wrong."""
    return Verdict.FAIL if Verdict.FAIL in parts or not parts else Verdict.ERROR


def hidden_by_xfail(report: pytest.TestReport, error: BaseException) -> bool:
    """Say whether an ``xfail`` mark took a broken lab for the expected failure."""
    return report.skipped and hasattr(report, "wasxfail") and isinstance(error, HarnessError)


def hides_interrupt(error: BaseException) -> bool:
    """Say whether *error* came while Ctrl-C was being handled, and took its place.

    Two at once break Python's own locks: "RuntimeError: release unlocked lock".
    """
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        if isinstance(at, KeyboardInterrupt):
            return True
        seen.add(id(at))
        at = at.__cause__ or at.__context__
    return False


def put_message_first(
    report: pytest.TestReport, excinfo: pytest.ExceptionInfo[BaseException], test_file: Path
) -> None:
    """Replace a long traceback by the message; the way there follows in a section.

    A `HarnessError` says itself what failed and where to look, so one line for the way is
    enough. An assertion keeps a short traceback.
    """
    if not isinstance(excinfo.value, HarnessError | AssertionError):
        return
    if isinstance(excinfo.value, HarnessError):
        way = ("raised through", _place(excinfo, test_file))
    else:
        way = ("traceback", str(_cut(excinfo, test_file, style="short")))
    report.longrepr = excinfo.getrepr(style="value", chain=False)
    report.sections.insert(0, way)


def keep_traceback(
    excinfo: pytest.ExceptionInfo[BaseException], item: pytest.Item, run: RunDirectory
) -> None:
    """Put the long traceback into the evidence of the test, whatever the terminal shows.

    A skip leaves none, and a full file system takes none: the test says that it is full.
    """
    if verdict_of_exception(excinfo.value) is Verdict.SKIP:
        return
    try:
        place = run.evidence(item.nodeid)
        with (place / "traceback.txt").open("a", encoding="utf-8") as file:
            file.write(f"{_cut(excinfo, item.path, style='long')}\n\n")
    except OSError as error:
        if not is_full(error):
            raise
        return
    if ("evidence", str(place)) not in item.user_properties:
        item.user_properties.append(("evidence", str(place)))


def _cut(
    excinfo: pytest.ExceptionInfo[BaseException],
    test_file: Path,
    *,
    style: Literal["long", "short"],
) -> object:
    """Return the traceback from the test file on: how pytest came there is not news."""
    return excinfo.getrepr(style=style, tbfilter=lambda found: found.traceback.cut(path=test_file))


def _place(excinfo: pytest.ExceptionInfo[BaseException], test_file: Path) -> str:
    entries = list(excinfo.traceback)
    own = [entry for entry in entries if Path(entry.path) == test_file]
    named = dict.fromkeys([*own[-1:], *entries[-1:]])
    return "\n".join(
        f"{os.path.relpath(entry.path)}:{entry.lineno + 1}: in {entry.name}" for entry in named
    )
