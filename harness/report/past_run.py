"""A run that is over, read back from its directory: results, facts, and whether it is whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, ParseError
from harness.model.rule import Verdict
from harness.report.results import Result, read_results
from harness.report.rundir import RunDirectory, latest
from harness.report.start import UNKNOWN
from harness.report.summary import read_facts

_WHOLE = (0, 1)
"""Exit statuses of pytest with which every test that was to run did run."""
_EXITS: Mapping[object, str] = {
    2: "interrupted",
    3: "pytest broke",
    4: "wrong usage",
    5: "no test was selected",
}
"""The others (https://docs.pytest.org, reference of exit codes), in our words."""


@dataclass(frozen=True, slots=True)
class PastRun:
    """What one run left."""

    path: Path
    """Its directory, absolute."""
    results: Mapping[str, Result]
    """By node id, in the order in which the tests began."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """``run.json``; empty if the run did not come so far."""
    lacks: str = ""
    """Why it is not whole: ``interrupted (exit status 2)``; empty if it is."""

    @property
    def is_whole(self) -> bool:
        """Say whether every test that was to run did run."""
        return not self.lacks

    @property
    def subject(self) -> dict[str, str]:
        """What was judged, as found."""
        return self._table("subject")

    @property
    def unknown(self) -> str:
        """Why what was judged could not be found, one line; empty if it was."""
        return _subject_unknown(self.facts)

    @property
    def settings(self) -> dict[str, str]:
        """What was asked for."""
        return self._table("settings")

    @property
    def began(self) -> str:
        """Local time with offset, ISO 8601; empty if not known."""
        return str(self.facts.get("began", ""))

    @property
    def seconds(self) -> float:
        """Seconds from begin to end; 0 if not known."""
        found = self.facts.get("seconds")
        return float(found) if isinstance(found, int | float) else 0.0

    def _table(self, name: str) -> dict[str, str]:
        found = self.facts.get(name)
        pairs = found.items() if isinstance(found, Mapping) else ()
        return {str(key): str(value) for key, value in pairs}


def read_run(path: Path) -> PastRun:
    """Read the run in *path*: its own directory, or one of runs, whose ``latest`` it then is.

    :raise ConfigError: there is no run, or it cannot be read.
    """
    run = RunDirectory(_find(path))
    facts: Mapping[str, Any] = {}
    try:
        results = {one.nodeid: one for one in read_results(run.report_log)}
        if run.facts.is_file():
            facts = read_facts(run.facts)
    except (OSError, UnicodeDecodeError, ParseError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"the run in {path} cannot be read",
            seen=f"{type(error).__name__}: {error}",
            evidence=run.path,
            hint="run it again; what trapline run writes there must not be edited",
        ) from error
    return PastRun(run.path, results, facts, what_is_missing(results, facts))


def what_is_missing(results: Mapping[str, Result], facts: Mapping[str, Any]) -> str:
    """Return why a run is not whole, empty if it is.

    :param facts: ``run.json``, which is written when a run ends; empty if there is none.
    """
    if not facts:
        return "killed, or still running (no run.json)"
    status = facts.get("exit_status")
    collected = facts.get("collected")
    if any("::" not in name and one.verdict is Verdict.ERROR for name, one in results.items()):
        return f"tests could not be collected (exit status {status})"
    if status not in _WHOLE and not results and (why := _subject_unknown(facts)):
        return f"refused at the start: {why}"
    if status not in _WHOLE:
        return f"{_EXITS.get(status, 'ended oddly')} (exit status {status})"
    if not results:
        return "it has no results"
    if isinstance(collected, int) and len(results) < collected:
        return f"ended early: {len(results)} of {collected} tests"
    return ""


def _subject_unknown(facts: Mapping[str, Any]) -> str:
    """Return why the subject could not be found, empty if it was."""
    subject = facts.get("subject")
    said = str(subject.get(UNKNOWN, "")) if isinstance(subject, Mapping) else ""
    return said.partition("\n")[0]


def _find(path: Path) -> Path:
    for run in (RunDirectory(path.resolve()), latest(path.absolute())):
        if run is not None and run.report_log.is_file():
            return run.path
    if not path.exists():
        raise ConfigError(
            f"there is no {path}", hint="name the directory of a run, such as results/latest"
        )
    runs = sorted(file.parent.name for file in path.glob("*/report.jsonl"))
    raise ConfigError(
        f"no run in {path}",
        seen="it has no report.jsonl, and no 'latest' that has",
        hint=f"name one of the runs there: {', '.join(runs[-3:])}"
        if runs
        else "name the directory of a run, such as results/latest",
    )
