"""Runs read back from their directories."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import ConfigError
from harness.model.rule import Verdict
from harness.report.past_run import read_run

MakeRun = Callable[..., Path]
TWO = {"a.py::t": "pass", "a.py::u": "fail: row 3"}


def test_a_run_that_ended_is_whole_whatever_failed(make_run: MakeRun) -> None:
    facts = {"began": "2026-11-21T03:04:05", "seconds": 4.5, "subject": {"host": "virtual"}}

    run = read_run(make_run("r", TWO, exit_status=1, **facts))

    assert run.is_whole
    assert [one.verdict for one in run.results.values()] == [Verdict.PASS, Verdict.FAIL]
    assert (run.began, run.seconds, run.subject) == ("2026-11-21T03:04:05", 4.5, facts["subject"])


@pytest.mark.parametrize(
    ("facts", "lacks"),
    [
        ({"exit_status": 2}, "interrupted (exit status 2)"),
        ({"exit_status": 3}, "pytest broke (exit status 3)"),
        ({"exit_status": 99}, "ended oddly (exit status 99)"),
        ({"exit_status": None}, "ended oddly (exit status None)"),
        ({"exit_status": 1, "collected": 7}, "ended early: 2 of 7 tests"),
        ({"ended": False}, "killed, or still running (no run.json)"),
    ],
)
def test_a_run_that_is_not_whole_says_why(
    make_run: MakeRun, facts: dict[str, object], lacks: str
) -> None:
    run = read_run(make_run("r", TWO, **facts))

    assert (run.is_whole, run.lacks) == (False, lacks)
    assert len(run.results) == 2


def test_a_module_that_cannot_be_collected_leaves_its_tests_unknown(make_run: MakeRun) -> None:
    run = read_run(make_run("r", {"a.py": "error: no module named x"}, exit_status=2))

    assert run.lacks == "tests could not be collected (exit status 2)"


def test_no_test_is_no_run(make_run: MakeRun) -> None:
    assert read_run(make_run("r", {})).lacks == "it has no results"


def test_a_run_that_did_not_say_how_many_tests_there_were_is_believed(make_run: MakeRun) -> None:
    assert read_run(make_run("r", TWO, collected=0)).is_whole


def test_facts_of_another_kind_are_passed_over(make_run: MakeRun) -> None:
    run = read_run(make_run("r", TWO, subject=["x"], seconds="long", settings=None))

    assert (run.subject, run.settings, run.seconds, run.began) == ({}, {}, 0.0, "")


def test_a_directory_of_results_stands_for_its_latest_run(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run("res/1", TWO)
    second = make_run("res/2", TWO)
    (tmp_path / "res/latest").symlink_to("2")

    assert read_run(tmp_path / "res").path == second
    assert read_run(tmp_path / "res/latest").path == second


def test_where_no_run_is_the_path_and_the_next_step_are_named(
    make_run: MakeRun, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"there is no .*gone\n  next: name the directory"):
        read_run(tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"no run in .*\n.*\n  next: name the directory"):
        read_run(tmp_path)
    make_run("res/1", TWO)
    with pytest.raises(ConfigError, match=r"no run in .*/res\n.*\n  next: .* there: 1"):
        read_run(tmp_path / "res")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("run.json", "{"),
        ("run.json", "[]"),
        ("report.jsonl", "nonsense\n{}\n"),
        ("report.jsonl", json.dumps({"$report_type": "TestReport"})),
    ],
)
def test_a_damaged_run_is_the_users_to_know(make_run: MakeRun, file: str, text: str) -> None:
    run = make_run("r", TWO)
    (run / file).write_text(text)

    with pytest.raises(ConfigError, match=r"the run in .*/r cannot be read(?s:.*)next: "):
        read_run(run)
