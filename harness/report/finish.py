"""What is written when a run has ended: facts, summary, a corrected JUnit file."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path

import pytest

from harness.model.rule import Verdict
from harness.report.junit import tell_errors_from_failures
from harness.report.results import Result, read_results
from harness.report.rundir import RunDirectory
from harness.report.summary import RunFacts, count, summarise
from harness.report.warnings_log import read_warnings
from harness.settings import Settings


def finish_run(
    run: RunDirectory,
    *,
    report_log: Path,
    junit: Path,
    began: datetime,
    command: tuple[str, ...],
    exit_status: int,
    collected: int,
    interrupted: bool = False,
    settings: Settings,
    subject: Mapping[str, str],
) -> list[Result]:
    """Write everything that follows from the report log, and return its results.

    :param report_log: where pytest-reportlog wrote; copied into *run* if it is elsewhere.
    :param junit: where pytest wrote JUnit XML; corrected in place.
    :param began: aware local time.
    :param collected: how many tests there were to run.
    :param interrupted: somebody ended the run.
    """
    if report_log.absolute() != run.report_log:
        shutil.copyfile(report_log, run.report_log)
    if junit.is_file():
        tell_errors_from_failures(junit)
    results = read_results(run.report_log)
    facts = RunFacts(
        began=began.isoformat(timespec="seconds"),
        seconds=round((datetime.now().astimezone() - began).total_seconds(), 1),
        host=f"{platform.node()} ({platform.machine()}, {platform.system()} {platform.release()})",
        command=command,
        exit_status=exit_status,
        settings=settings.model_dump(),
        subject=dict(subject),
        versions=versions(),
        rerun_options=tuple(settings.options()),
        counts=count(results),
        collected=collected,
        interrupted=interrupted,
        controls={
            result.nodeid: result.said
            for result in results
            if result.controls and result.verdict is Verdict.PASS
        },
    )
    run.facts.write_text(facts.to_json(), encoding="utf-8")
    warnings = read_warnings(run.path)
    text = summarise(results, facts, run.path, warnings=warnings)
    run.summary.write_text(text, encoding="utf-8")
    if results:  # a mistyped option must not hide the verdicts of the run before
        run.become_latest()
    return results


def versions() -> dict[str, str]:
    """Return the versions of what judges (not of what is judged)."""
    try:
        own = metadata.version("trapline")
    except metadata.PackageNotFoundError:
        own = "not installed"
    return {"trapline": own, "python": sys.version.split()[0], "pytest": pytest.__version__}
