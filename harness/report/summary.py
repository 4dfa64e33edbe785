"""A run in a screen of plain text, to paste into a mail."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import ParseError
from harness.model.rule import Verdict
from harness.report.results import Result


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What was run, where, on what; the content of ``run.json``."""

    began: str
    """Local time with offset, ISO 8601."""
    seconds: float
    host: str
    """Name, architecture and kernel of the machine that ran pytest."""
    command: tuple[str, ...]
    """Arguments of pytest."""
    exit_status: int
    settings: Mapping[str, str]
    """As asked for: `harness.settings.Settings`."""
    subject: Mapping[str, str]
    """As found: the answers of the hook ``pytest_trapline_subject``."""
    versions: Mapping[str, str]
    """Of trapline, Python and pytest."""
    rerun_options: tuple[str, ...] = ()
    """Options that ask for the same subjects again."""
    counts: Mapping[str, int] = field(default_factory=dict)
    controls: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Negative controls that held, and what the failing checks said there."""
    collected: int = 0
    """How many tests there were to run; 0: not known."""
    interrupted: bool = False
    """Somebody ended it (Ctrl-C, SIGTERM, SIGHUP)."""

    def to_json(self) -> str:
        """Return the text of ``run.json``."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def read_facts(file: Path) -> dict[str, Any]:
    """Return ``run.json`` as a table.

    :raise ParseError: it is not one.
    """
    text = file.read_text(encoding="utf-8")
    try:
        table = json.loads(text)
    except json.JSONDecodeError as error:
        raise ParseError("not JSON", text=text[:200], where=str(file)) from error
    if not isinstance(table, dict):
        raise ParseError("not a table", text=text[:200], where=str(file))
    return table


def count(results: Iterable[Result]) -> dict[str, int]:
    """Return how many results have each of the four verdicts, zeros included."""
    counter = Counter(result.verdict for result in results)
    return {str(verdict): counter[verdict] for verdict in Verdict}


def counts_line(counts: Mapping[str, int]) -> str:
    """Return ``12 pass, 1 fail, 0 error, 3 skip``."""
    return ", ".join(f"{number} {verdict}" for verdict, number in counts.items())


def interrupted_line(ran: int, collected: int) -> str:
    """Return ``interrupted, 5 of 17 tests not run``.

    :param collected: how many there were to run; 0: not known.
    """
    if not collected:
        return "interrupted before any test ran"
    return f"interrupted, {max(collected - ran, 0)} of {collected} tests not run"


def summarise(
    results: Sequence[Result], facts: RunFacts, directory: Path, *, warnings: Sequence[str] = ()
) -> str:
    """Return the text of ``summary.txt``.

    :param directory: of the run; evidence is named relative to it.
    :param warnings: what went another way than it should, without changing a verdict.
    """
    lines = [
        f"trapline {facts.versions.get('trapline', '')}: {counts_line(count(results))}",
        *([interrupted_line(len(results), facts.collected)] if facts.interrupted else []),
        "",
        *_table({"date": facts.began, "took": f"{facts.seconds:.0f} s", "run on": facts.host}),
        *_table(_subject(facts)),
        *_table({"results": str(directory)}),
    ]
    for verdict, title in ((Verdict.FAIL, "Failures"), (Verdict.ERROR, "Errors")):
        found = [result for result in results if result.verdict is verdict]
        if found:
            lines += ["", f"{title} ({len(found)})"]
            lines += [line for result in found for line in _problem(result, facts, directory)]
    if warnings:
        lines += ["", f"Warnings ({len(warnings)})", *(f"  {line}" for line in warnings)]
    if repeated := [result for result in results if result.again]:
        lines += ["", f"Run again, for what the lab did ({len(repeated)})"]
        lines += [f"  {r.nodeid}: {reason}" for r in repeated for reason in r.again]
    if labels := _labels(results):
        lines += ["", "Qualified", *labels]
    if reasons := _skips(results):
        lines += ["", "Skipped", *reasons]
    return "\n".join(lines) + "\n"


def _subject(facts: RunFacts) -> dict[str, str]:
    """Return what was found; where nothing was, what was asked for."""
    asked = {
        name.replace("_", " "): f"{value} (asked for)"
        for name, value in facts.settings.items()
        if value and name not in facts.subject
    }
    return {**facts.subject, **asked}


def _problem(result: Result, facts: RunFacts, directory: Path) -> list[str]:
    cited = ", ".join((*result.rules, *result.controls)) or "no rule"
    lines = ["", f"  {result.verdict.upper()} {result.nodeid} [{cited}]"]
    if requirement := result.properties.get("requirement"):
        lines.append(f"    requires: {requirement}")
    if label := result.properties.get("label"):
        lines.append(f"    label:    {label}")
    lines.append(f"    said:     {result.first_line or '(nothing)'}")
    if evidence := result.properties.get("evidence"):
        place = Path(evidence)
        inside = place.relative_to(directory) if place.is_relative_to(directory) else place
        lines.append(f"    evidence: {inside}")
    again = ["trapline", "run", *facts.rerun_options, result.nodeid]
    lines.append(f"    again:    {shlex.join(again)}")
    return lines


def _labels(results: Iterable[Result]) -> list[str]:
    """Count the results that say something of a model and not of the real thing alone."""
    labels = Counter(label for result in results if (label := result.properties.get("label")))
    return [f"  {number:4} x {label}" for label, number in labels.most_common()]


def _skips(results: Iterable[Result]) -> list[str]:
    reasons = Counter(
        result.first_line or "no reason" for result in results if result.verdict is Verdict.SKIP
    )
    return [f"  {number:4} x {reason}" for reason, number in reasons.most_common()]


def _table(rows: Mapping[str, str]) -> list[str]:
    indent = " " * 16
    return [
        f"{name + ':':<15} " + value.replace("\n", f"\n{indent}") for name, value in rows.items()
    ]
