"""``trapline rules``: what covers each rule of the catalogue, and what it said last."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.table import Table

from harness.commands.places import Places
from harness.errors import ConfigError
from harness.model.rule import Rule, RuleState, Verdict, overall, state_of
from harness.report import marks
from harness.report.results import Result, message_of, read_results
from harness.report.rundir import RunDirectory, latest
from harness.rules import load_rules, select


@dataclass(frozen=True, slots=True)
class ControlResult:
    """A negative control, and what it said last."""

    nodeid: str
    verdict: Verdict | None
    """None: it was not in the run."""
    said: tuple[str, ...]
    """What the check said of each subject that breaks the rule; the reason it did not pass."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """One rule, the tests that cite it, and the last word on it."""

    rule: Rule
    state: RuleState
    tests: tuple[str, ...]
    negative_controls: tuple[str, ...]
    last_verdict: Verdict | None
    controls: tuple[ControlResult, ...] = ()

    def to_dict(self, *, controls: bool = False) -> dict[str, object]:
        """Return the form that ``--json`` prints.

        :param controls: what each control said, too.
        """
        said = [
            {
                "test": control.nodeid,
                "verdict": None if control.verdict is None else str(control.verdict),
                "said": list(control.said),
            }
            for control in self.controls
        ]
        return {
            "id": self.rule.id,
            "statement": self.rule.statement,
            "source": self.rule.source,
            "applicability": self.rule.applies,
            "state": str(self.state),
            "tests": list(self.tests),
            "negative_controls": list(self.negative_controls),
            "last_verdict": None if self.last_verdict is None else str(self.last_verdict),
            **({"controls": said} if controls else {}),
        }


@dataclass(slots=True, eq=False)  # pytest keeps its plugins in sets
class Citations:
    """A pytest plugin that notes which test cites which rule, and what could not be read."""

    tests: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    controls: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    is_suite: dict[str, bool] = field(default_factory=dict)
    fixtures: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """All that a test asks for, what those ask for included."""
    device: dict[str, str] = field(default_factory=dict)
    """The test device a test is repeated for (parameter of the fixture ``assigned``)."""
    broken: list[str] = field(default_factory=list)
    suites: Path = field(default_factory=Path)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that cannot be imported."""
        if report.failed:
            self.broken.append(f"{report.nodeid}: {message_of(report.longrepr)}")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note what each test cites."""
        rules = load_rules()
        for item in session.items:
            self.is_suite[item.nodeid] = item.path.is_relative_to(self.suites)
            self.fixtures[item.nodeid] = tuple(getattr(item, "fixturenames", ()))
            parameters = getattr(getattr(item, "callspec", None), "params", {})
            if "assigned" in parameters:
                self.device[item.nodeid] = str(parameters["assigned"])
            for rule in marks.cited(item, marks.RULE, rules):
                self.tests[rule].append(item.nodeid)
            for rule in marks.cited(item, marks.CONTROL, rules):
                self.controls[rule].append(item.nodeid)


def rule_coverage(
    *, section: str = "", uncovered: bool = False, run: Path | None = None
) -> list[Coverage]:
    """Return what is known about the rules.

    :param section: a series (``MAP``), a section letter or a rule id; empty: all.
    :param uncovered: only rules that no test cites though one could.
    :param run: directory of the run whose verdicts count; None: the last one.
    :raise ConfigError: no such section or run, or the tests cannot be collected.
    """
    rules = select(section) if section else tuple(load_rules().values())
    places = Places.find()
    results = last_results(run, places.results)
    citations = collect(places)
    found = [cover(rule, citations, results) for rule in rules]
    return [one for one in found if not uncovered or one.state is RuleState.UNCOVERED]


def cover(rule: Rule, citations: Citations, results: Mapping[str, Result]) -> Coverage:
    """Join one rule with its tests and their results."""
    verdicts = {nodeid: result.verdict for nodeid, result in results.items()}
    tests = tuple(citations.tests.get(rule.id, ()))
    controls = tuple(citations.controls.get(rule.id, ()))
    return Coverage(
        rule=rule,
        state=state_of(rule, tests, controls, verdicts, is_suite=citations.is_suite),
        tests=tests,
        negative_controls=controls,
        last_verdict=overall(verdicts[test] for test in tests if test in verdicts),
        controls=tuple(_control(name, results.get(name)) for name in controls),
    )


def _control(nodeid: str, result: Result | None) -> ControlResult:
    if result is None:
        return ControlResult(nodeid, None, ())
    if result.verdict is Verdict.PASS:
        return ControlResult(nodeid, result.verdict, result.said)
    return ControlResult(nodeid, result.verdict, (result.first_line,))


def collect(places: Places) -> Citations:
    """Let pytest list all tests, quietly, in this process; nothing is run or probed.

    :raise ConfigError: a module cannot be imported, or a mark is wrong.
    """
    citations = Citations(suites=places.suites)
    wanted = [path for path in (places.suites, places.tests) if path is not None and path.is_dir()]
    arguments = [
        *places.pytest_options(),
        "--collect-only",
        "-qq",
        "-p",
        "no:cacheprovider",
        # Collecting uses no snapshot; syrupy calls that a failure.
        "-p",
        "no:syrupy",
        f"--results={places.results}",
        *map(str, wanted),
    ]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = pytest.main(arguments, plugins=[citations])
    if citations.broken or status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise ConfigError(
            "the tests cannot be collected",
            seen="\n".join(citations.broken) or said.getvalue()[-2000:],
            hint="pytest --collect-only says more",
        )
    return citations


def last_results(run: Path | None, base: Path) -> dict[str, Result]:
    """Return node id to result of *run*, or of the last one under *base*.

    :raise ConfigError: *run* is given and holds no results.
    """
    directory = RunDirectory(run) if run is not None else latest(base)
    if directory is None or not directory.report_log.is_file():
        if run is None:
            return {}
        raise ConfigError(f"no results in {run}", hint="name a directory that trapline run made")
    return {result.nodeid: result for result in read_results(directory.report_log)}


def as_json(found: Iterable[Coverage], *, controls: bool = False) -> str:
    """Return a JSON list, one object per rule."""
    objects = [one.to_dict(controls=controls) for one in found]
    return json.dumps(objects, indent=2, ensure_ascii=False)


def controls_lines(found: Iterable[Coverage]) -> list[str]:
    """Return, for each rule with negative controls, these and what they said last."""
    lines = []
    for one in found:
        if one.controls:
            lines.append(f"{one.rule.id} ({one.state}): {one.rule.statement}")
        for control in one.controls:
            lines.append(f"  {control.verdict or 'not run'}: {control.nodeid}")
            lines += [f"    said: {text}" for text in control.said]
    return lines


def as_table(found: Iterable[Coverage]) -> Table:
    """Return a table for a terminal."""
    table = Table("rule", "state", "last", "tests", "controls", "statement", box=None)
    for one in found:
        table.add_row(
            one.rule.id,
            one.state,
            one.last_verdict or "-",
            str(len(one.tests)),
            str(len(one.negative_controls)),
            one.rule.statement,
        )
    return table


def counts_line(found: Sequence[Coverage]) -> str:
    """Return ``37 rules: 12 executed, 25 uncovered``."""
    counts = Counter(one.state for one in found)
    parts = [f"{counts[state]} {state}" for state in RuleState if counts[state]]
    return f"{len(found)} rules: {', '.join(parts) or 'none'}"
