"""What is printed while a run goes on."""

from __future__ import annotations

import io

import pytest

from harness.model.rule import Verdict
from harness.report.progress import Plain, Status, finished_line, own_terminal
from harness.report.results import Result
from harness.step import StepRecord

GOOD = Result("suites/a.py::t", Verdict.PASS, 0.123, rules=("MAP-01", "MAP-02"))
BAD = Result(
    "suites/a.py::u", Verdict.FAIL, 12, controls=("MT-01",), message="page 3\nx", worker="gw0"
)


def test_a_line_has_verdict_seconds_test_and_rules() -> None:
    assert finished_line(GOOD) == "PASS     0.12 s  suites/a.py::t  [MAP-01 MAP-02]"


def test_a_problem_says_its_first_line_and_its_worker() -> None:
    assert finished_line(BAD) == ("gw0  FAIL    12.00 s  suites/a.py::u  [controls MT-01]  page 3")


def test_plain_progress_is_a_line_per_finished_test() -> None:
    lines: list[str] = []
    progress = Plain(lines.append)

    progress.started("suites/a.py::t", 1)
    progress.stepped(StepRecord("boot", 0, 0.0))
    progress.finished(GOOD)
    progress.stop()

    assert lines == [finished_line(GOOD)]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_status_shows_test_step_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    status = Status(stream)

    status.started("suites/a.py::t", 2)
    status.stepped(StepRecord("boot the host", 0, 0.0))
    status.stop()  # draws a last time
    status.finished(BAD)

    text = stream.getvalue()
    assert "0/2  0 pass  0 fail  0 error  0 skip" in text
    assert "suites/a.py::t" in text
    assert "boot the host" in text
    assert finished_line(BAD) in text


def test_the_status_shows_what_each_worker_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    status = Status(stream)

    status.started("suites/b.py::late", 20, "gw1")
    status.started("suites/a.py::early", 20, "gw0")
    status.stop()

    rows = [line.split() for line in stream.getvalue().splitlines()]
    assert [(row[0], row[-1]) for row in rows if row and row[0].startswith("gw")] == [
        ("gw0", "suites/a.py::early"),
        ("gw1", "suites/b.py::late"),
    ]


def test_more_workers_than_rows_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    status = Status(stream)

    for number in range(11):
        status.started(f"suites/a.py::t{number}", 20, f"gw{number}")
    status.stop()

    assert "and 3 more" in stream.getvalue()


def test_what_is_no_terminal_gets_no_status() -> None:
    assert own_terminal(io.StringIO()) is None
