"""Warnings reach the report."""

from __future__ import annotations

import logging
from pathlib import Path

from harness.report.warnings_log import WarningsLog, read_warnings


def test_warnings_of_the_library_are_kept_one_a_line_and_counted(tmp_path: Path) -> None:
    one, other = (WarningsLog(tmp_path, worker=name) for name in ("gw0", ""))
    log = logging.getLogger("harness.lab.states")
    log.warning("the saved state %s is made again:\n  %s", "host 1a2b", "no such section")
    logging.getLogger("paramiko").warning("not ours")
    log.info("no warning")
    one.pytest_unconfigure()
    log.warning("said once")
    other.pytest_unconfigure()
    log.warning("too late")

    assert read_warnings(tmp_path) == [
        "the saved state host 1a2b is made again: | no such section (2 times)",
        "said once",
    ]


def test_a_run_without_warnings_has_no_file(tmp_path: Path) -> None:
    WarningsLog(tmp_path, worker="gw0").pytest_unconfigure()

    assert read_warnings(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
