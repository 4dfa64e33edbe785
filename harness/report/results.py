"""Read the report log of a run back into one result per test."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ParseError
from harness.model.rule import Verdict
from harness.report.verdict import verdict_of, verdict_of_phase

SAID = "control_said"
"""The property, of a negative control, that holds what the check said; it may be there again."""

AGAIN = "rerun"
"""The outcome that pytest-rerunfailures gives to the phase because of which a test is repeated."""

_PREFIX = re.compile(r"^(?:[a-z_]\w*\.)+(?=[A-Z]\w*(?::|$))")


@dataclass(frozen=True, slots=True)
class Result:
    """What one test said in one run."""

    nodeid: str
    verdict: Verdict
    seconds: float
    """Set-up, body and tear-down together."""
    rules: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    """``requirement``, ``evidence``, ``subject.<fact>``, and what the test recorded."""
    message: str = ""
    """Of the first problem, or the reason of the skip; may have several lines."""
    worker: str = ""
    said: tuple[str, ...] = ()
    """What the checks said that failed as they must, of a negative control."""
    again: tuple[str, ...] = ()
    """What broke the attempts before this one, for which the test was not to blame."""

    @property
    def first_line(self) -> str:
        """First line of the message."""
        return self.message.partition("\n")[0]


@dataclass(slots=True)
class Phases:
    """Joins the reports of one test as they come."""

    nodeid: str
    verdict: Verdict = Verdict.PASS
    seconds: float = 0.0
    properties: dict[str, str] = field(default_factory=dict)
    message: str = ""
    worker: str = ""
    parts: dict[Verdict, str] = field(default_factory=dict)
    said: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    ended: bool = False
    """Its body came to an end, or it was over before that."""
    _is_spoilt: bool = False

    def add(
        self, verdict: Verdict, seconds: float, message: str, properties: Iterable[Any]
    ) -> None:
        """Join one phase."""
        joined = self.verdict.then(verdict)
        if joined is not self.verdict or not self.message:
            self.message = message or self.message
        self.verdict = joined
        self.seconds += seconds
        pairs = [(str(name), str(value)) for name, value in properties]
        self.properties.update((name, value) for name, value in pairs if name != SAID)
        # Each phase repeats what was known before.
        self.said = tuple(value for name, value in pairs if name == SAID) or self.said

    def begin_anew(self, when: str | None, seconds: float, message: str) -> None:
        """Forget what was joined: the test is run again because of *message*."""
        self.verdict, self.message, self.parts, self.said = Verdict.PASS, "", {}, ()
        self.seconds += seconds
        self.again += (message.partition("\n")[0],)
        self._is_spoilt = when != "teardown"
        self.ended = False

    def is_of_spoilt(self, when: str | None, seconds: float) -> bool:
        """Say whether a phase is only the tear-down of an attempt that does not count."""
        if not self._is_spoilt or when != "teardown":
            return False
        self.seconds += seconds
        self._is_spoilt = False
        return True

    def part(self, verdict: Verdict, message: str) -> None:
        """Note a subtest: its message is worth more than "contains 1 failed subtest"."""
        if verdict.is_problem:
            self.parts.setdefault(verdict, message)

    def join(self, report: pytest.TestReport) -> bool:
        """Join one phase as pytest reports it; say whether the test has ended with it."""
        message = message_of(report.longrepr)
        if isinstance(report, pytest.SubtestReport):
            self.part(verdict_of(report), message)
            return False
        if str(report.outcome) == AGAIN:
            self.begin_anew(report.when, report.duration, message)
            return False
        if self.is_of_spoilt(report.when, report.duration):
            return False
        if reason := report.__dict__.get("wasxfail"):
            message = f"expected to fail: {reason}"
        self.worker = report.__dict__.get("worker_id", self.worker)
        self.add(verdict_of(report), report.duration, message, report.user_properties)
        return report.when not in ("setup", "call")

    def result(self) -> Result:
        """Return what is known so far."""
        properties = dict(self.properties)
        return Result(
            nodeid=self.nodeid,
            verdict=self.verdict,
            seconds=self.seconds,
            rules=tuple(properties.pop("rules", "").split()),
            controls=tuple(properties.pop("negative_controls", "").split()),
            properties=properties,
            message=self.parts.get(self.verdict, self.message),
            worker=self.worker,
            said=self.said,
            again=self.again,
        )


def read_results(report_log: Path) -> list[Result]:
    """Return the results in the order in which the tests began.

    A module that could not be collected is a result too, with verdict ``error``. A test whose
    body was interrupted is none: all that passed was its set-up.

    :raise ParseError: a line is no JSON object. A cut last line, of a run that was killed,
        is passed over.
    """
    tests: dict[str, Phases] = {}
    for entry in _entries(report_log):
        kind = entry.get("$report_type")
        if kind == "CollectReport" and entry.get("outcome") == "failed":
            nodeid = entry["nodeid"] or "collection"
            tests[nodeid] = Phases(
                nodeid, Verdict.ERROR, message=message_of(entry["longrepr"]), ended=True
            )
        elif kind in ("TestReport", "SubTestReport"):
            _join(tests, entry, is_part=kind == "SubTestReport")
    return [phases.result() for phases in tests.values() if phases.ended]


def message_of(longrepr: object) -> str:
    """Return what a report says about its end, without tracebacks.

    :param longrepr: pytest's own, or as the report log has it: text, ``[file, line, reason]``,
        or a table.
    """
    crash = getattr(longrepr, "reprcrash", None)
    if crash is not None:
        text = str(crash.message)
    elif isinstance(longrepr, Mapping):
        text = str((longrepr.get("reprcrash") or {}).get("message", ""))
    elif isinstance(longrepr, list | tuple):
        text = str(longrepr[-1]).removeprefix("Skipped: ")
    else:
        text = str(longrepr or "")
    return _PREFIX.sub("", text).removeprefix("AssertionError: ").removeprefix("Failed: ").strip()


def _join(tests: dict[str, Phases], entry: Mapping[str, Any], *, is_part: bool) -> None:
    phases = tests.setdefault(entry["nodeid"], Phases(entry["nodeid"]))
    message = message_of(entry.get("longrepr"))
    if entry["outcome"] == AGAIN:
        phases.begin_anew(entry.get("when"), entry["duration"], message)
        return
    if not is_part and phases.is_of_spoilt(entry.get("when"), entry["duration"]):
        return
    verdict = verdict_of_phase(
        entry.get("when"), entry["outcome"], entry.get("verdict"), is_part=is_part
    )
    if is_part:
        phases.part(verdict, message)
        return
    if reason := entry.get("wasxfail"):
        message = f"expected to fail: {reason}"
    phases.worker = entry.get("worker_id", phases.worker)
    phases.ended |= entry.get("when") != "setup" or verdict is not Verdict.PASS
    phases.add(verdict, entry["duration"], message, entry["user_properties"])


def _entries(report_log: Path) -> Iterator[Mapping[str, Any]]:
    lines = report_log.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                return
            raise ParseError(
                "not a line of a report log", text=line[:200], where=f"{report_log}:{number}"
            ) from error
        yield entry
