"""``trapline rules``: what covers each rule of the catalogue, and what runs say of it."""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.commands.matrix import done_in
from harness.commands.places import Places
from harness.errors import ConfigError
from harness.model.rule import RuleState
from harness.report import marks
from harness.report.compare import Comparison, compare
from harness.report.coverage import Coverage, cover
from harness.report.past_run import read_run
from harness.report.results import message_of
from harness.report.rundir import latest
from harness.rules import load_rules, select


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
    found: Comparison, *, section: str = "", uncovered: bool = False
) -> list[Coverage]:
    """Return what is known about the rules.

    :param found: the runs that count, as `runs_that_count` gives them.
    :param section: a series (``MAP``), a section letter or a rule id; empty: all.
    :param uncovered: only rules that no test cites though one could.
    :raise ConfigError: no such section, or the tests cannot be collected.
    """
    rules = select(section) if section else tuple(load_rules().values())
    citations = collect(Places.find())
    covered = [
        cover(
            rule,
            citations.tests.get(rule.id, ()),
            citations.controls.get(rule.id, ()),
            found,
            is_suite=citations.is_suite,
        )
        for rule in rules
    ]
    return [one for one in covered if not uncovered or one.state is RuleState.UNCOVERED]


def runs_that_count(paths: Sequence[Path] = ()) -> Comparison:
    """Read runs, and put them beside each other.

    :param paths: directories of runs; of results, which stand for their last run; of a matrix,
        which stand for all its runs. Empty: the last run there is, if there is one.
    :raise ConfigError: there is no run in one of them, or it cannot be read.
    """
    last = latest(Places.find().results)
    if not paths and last is not None and last.report_log.is_file():
        paths = (last.path,)
    runs = [read_run(one) for path in paths for one in done_in(path) or (path,)]
    return compare(list({run.path: run for run in runs}.values()))


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
