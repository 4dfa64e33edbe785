"""``trapline compare``: what is printed, and the exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.commands.compare import compare_runs
from harness.errors import ConfigError

MakeRun = Callable[..., Path]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(*words: str) -> tuple[int, list[str]]:
    done = CliRunner().invoke(app, ["compare", *words])
    return done.exit_code, done.stdout.splitlines()


def test_runs_with_the_same_verdicts_are_identical(make_run: MakeRun) -> None:
    for name in "ab":
        make_run(name, {"x.py::t": "pass", "x.py::u": "skip: no igb"}, seconds=61.4)

    status, lines = said("a", "b")

    assert status == 0
    assert lines == [
        "A  a",
        "   61 s; 1 pass, 0 fail, 0 error, 1 skip",
        "B  b",
        "   61 s; 1 pass, 0 fail, 0 error, 1 skip",
        "2 tests in 2 runs: identical",
    ]


def test_what_differs_is_shown_with_what_was_said(make_run: MakeRun) -> None:
    new = {"x.py::t": "fail: row 3\nmore", "x.py::only": "pass", "x.py::u": "pass"}
    make_run("a", {"x.py::t": "pass", "x.py::u": "pass"}, subject={"QEMU": "10"})
    make_run("b", new, exit_status=1, subject={"QEMU": "11"})

    status, lines = said("a", "b")

    assert status == 1
    assert lines[4:] == [
        "QEMU:",
        "  A: 10",
        "  B: 11",
        "",
        "not the same verdict (1)",
        "  A      B",
        "  pass   fail   x.py::t",
        "                  B: row 3",
        "",
        "not in every run (1): 1 in B only",
        "  A      B",
        "  -      pass   x.py::only",
        "2 tests in 2 runs: 1 of 2 differ; 1 not in every run",
    ]


def test_a_run_that_was_interrupted_is_said_and_is_not_identical(make_run: MakeRun) -> None:
    make_run("a", {"x.py::t": "pass"}, exit_status=2)
    make_run("b", {"x.py::t": "pass"})

    status, lines = said("a", "b")

    assert status == 1
    assert "   INCOMPLETE: interrupted (exit status 2)" in lines
    assert lines[-1] == "1 test in 2 runs: identical; INCOMPLETE: A"


def test_runs_that_do_not_know_what_they_judged_are_not_just_identical(make_run: MakeRun) -> None:
    unknown = {"subject unknown": "the mirror has no suite nosuch\n  next: check"}
    make_run("a", {"x.py::t": "pass"}, subject=unknown)
    make_run("b", {"x.py::t": "pass"}, subject=unknown)

    _, lines = said("a", "b")

    assert lines.count("   SUBJECT UNKNOWN: the mirror has no suite nosuch") == 2
    assert lines[-1] == "1 test in 2 runs: identical; SUBJECT UNKNOWN: A B"


def test_many_absent_tests_are_counted_and_only_problems_named(make_run: MakeRun) -> None:
    many = {f"x.py::t{n}": "pass" for n in range(40)}
    make_run("a", {"x.py::t0": "pass"})
    make_run("b", {**many, "x.py::bad": "error: no host"}, exit_status=1)

    _, short = said("a", "b")
    _, long = said("a", "b", "--absent")

    assert sum("x.py::" in line for line in short) == 1
    assert any("39 that passed or were skipped not listed" in line for line in short)
    assert sum("x.py::" in line for line in long) == 40


def test_an_absent_test_counts_if_asked_for(make_run: MakeRun) -> None:
    make_run("a", {"x.py::t": "pass"})
    make_run("b", {"x.py::t": "pass", "x.py::u": "pass"})

    assert said("a", "b")[0] == 0
    assert said("a", "b", "--strict")[0] == 1


def test_reasons_of_skips_are_shown_if_asked_for(make_run: MakeRun) -> None:
    make_run("a", {"x.py::t": "skip: no igb"})
    make_run("b", {"x.py::t": "skip: no nvme"})

    assert not any("no igb" in line for line in said("a", "b")[1])
    status, lines = said("a", "b", "--reasons")
    assert status == 0
    assert [line.strip() for line in lines[5:-1]] == [
        "skipped for unlike reasons (1), no difference",
        "A      B",
        "skip   skip   x.py::t",
        "A: no igb",
        "B: no nvme",
    ]


def test_json_says_the_same(make_run: MakeRun) -> None:
    make_run("a", {"x.py::t": "pass"}, seconds=3)
    make_run("b", {"x.py::t": "fail: row 3"}, exit_status=1)

    status, lines = said("a", "b", "--json")
    data = json.loads("\n".join(lines))

    assert (status, data["identical"], data["common"]) == (1, False, 1)
    assert data["differ"] == [
        {
            "test": "x.py::t",
            "rules": ["MAP-01"],
            "verdicts": {"A": "pass", "B": "fail"},
            "messages": {"B": "row 3"},
        }
    ]
    assert [(one["name"], one["whole"], one["seconds"]) for one in data["runs"]] == [
        ("A", True, 3.0),
        ("B", True, 0.0),
    ]


def test_one_run_the_same_run_and_strangers_are_refused(make_run: MakeRun) -> None:
    run = make_run("res/a", {"x.py::t": "pass"})
    other = make_run("res/b", {"x.py::u": "pass"})
    (run.parent / "latest").symlink_to("a")

    with pytest.raises(ConfigError, match="nothing to be compared with"):
        compare_runs([run])
    with pytest.raises(ConfigError, match="are the same run"):
        compare_runs([run, run.parent])
    with pytest.raises(ConfigError, match="no test is in all of the runs"):
        compare_runs([run, other])
