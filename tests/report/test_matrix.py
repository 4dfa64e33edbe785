"""Matrices of runs: judged and shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.model.rule import Verdict
from harness.report.matrix import Cell, CellRun, Matrix
from harness.report.matrix_view import last_line, matrix_dict, matrix_lines
from harness.report.past_run import PastRun
from harness.report.results import Result

A, B = Cell("A", "debian:trixie", "built:7.3"), Cell("B", "./build", "built:7.3")
HERE = Path("/r/a")


def done(cell: Cell, name: str, said: str, version: str = "10.0") -> CellRun:
    """One test a letter: p, f, e, s."""
    words = {str(verdict)[0]: verdict for verdict in Verdict}
    results = {
        f"x.py::t{at}": Result(f"x.py::t{at}", words[one], 1.0, message="row 3")
        for at, one in enumerate(said)
    }
    facts = {"began": "2026-11-21T03:04:05", "seconds": 61.4, "subject": {"QEMU": version}}
    return CellRun(cell, name, HERE, PastRun(HERE / name, results, facts), problem="")


GREEN = Matrix((done(A, "A", "pps"), done(B, "B", "pps", "11.1")))


def test_a_green_matrix_is_a_table_and_two_lines() -> None:
    assert list(matrix_lines(GREEN)) == [
        "   QEMU           kernel     pass  fail  error  skip  time",
        "A  debian:trixie  built:7.3     2     0      0     1  61 s",
        "B  ./build        built:7.3     2     0      0     1  61 s",
        "",
        "between cells (A, B): 3 tests in 2 runs: identical",
        "QEMU:",
        "  A: 10.0",
        "  B: 11.1",
        "",
        "2 cells, 2 runs: all green",
    ]
    assert GREEN.is_fine


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("pf", "1 cell, 2 runs: not green: A2; REPEATS DIFFER: A"),
        ("pe", "1 cell, 2 runs: not green: A2; REPEATS DIFFER: A"),
        ("ps", "1 cell, 2 runs: REPEATS DIFFER: A"),
        ("p", "1 cell, 2 runs: REPEATS DIFFER: A"),
        ("pp", "1 cell, 2 runs: all green, repeats identical"),
    ],
)
def test_any_difference_between_repeats_is_a_finding(said: str, line: str) -> None:
    found = Matrix((done(A, "A1", "pp"), done(A, "A2", said)))

    assert last_line(found) == line
    assert found.is_fine == (said == "pp")


def test_repeats_are_compared_before_cells_and_cells_by_their_first_run() -> None:
    runs = done(A, "A1", "pp"), done(A, "A2", "pf"), done(B, "B1", "sp"), done(B, "B2", "sp")

    lines = list(matrix_lines(Matrix(runs)))

    assert [line for line in lines if line.endswith(("differ", "identical"))] == [
        "repeats of A: 2 tests in 2 runs: 1 of 2 differ",
        "repeats of B: 2 tests in 2 runs: identical",
        "between cells (A1, B1): 2 tests in 2 runs: 1 of 2 differ",
    ]
    assert "  A1     A2" in lines and "  A1     B1" in lines


def test_cells_may_differ_if_all_are_green() -> None:
    assert Matrix((done(A, "A", "pp"), done(B, "B", "ps"))).is_fine


def test_a_cell_in_which_nothing_passed_is_not_green() -> None:
    assert not done(A, "A", "ss").is_green


def test_what_is_not_whole_is_told_and_not_compared() -> None:
    partial = replace(done(B, "B", "p"), problem="interrupted (exit status 2)")
    found = Matrix((done(A, "A", "p"), partial, CellRun(Cell("C", "x", "y"), "C", HERE)))

    lines = list(matrix_lines(found))

    assert "  INCOMPLETE: interrupted (exit status 2); /r/a/output.txt" in lines[2]
    assert lines[3].split() == ["C", "x", "y", "-", "-", "-", "-", "-", "not", "run"]
    assert found.between_cells() is None
    assert lines[-1] == "3 cells, 3 runs: without results: C; INCOMPLETE: B"
    assert not found.is_fine


def test_what_was_done_before_says_when() -> None:
    kept = replace(done(A, "A", "p"), is_kept=True)

    assert list(matrix_lines(Matrix((kept,))))[1].endswith("61 s  done before, 2026-11-21 03:04")


def test_tests_that_had_to_be_run_again_are_counted() -> None:
    one = done(A, "A", "pp")
    assert one.run is not None
    results = {name: replace(said, again=("no host",)) for name, said in one.run.results.items()}

    shaky = replace(one, run=replace(one.run, results=results))

    assert list(matrix_lines(Matrix((shaky,))))[1].endswith("61 s  2 tests run again")


def test_an_interrupted_matrix_is_not_fine() -> None:
    assert not replace(GREEN, is_interrupted=True).is_fine


def test_json_says_the_same() -> None:
    found = Matrix((done(A, "A1", "pp"), done(A, "A2", "pf"), CellRun(B, "B1", HERE)))

    data = matrix_dict(found)

    assert (data["fine"], data["between_cells"]) == (False, None)
    assert [(one["name"], one["green"], one["problem"]) for one in data["runs"]] == [  # type: ignore[attr-defined]
        ("A1", True, ""),
        ("A2", False, ""),
        ("B1", False, "not run"),
    ]
    assert data["repeats"]["A"]["differ"][0]["verdicts"] == {"A1": "pass", "A2": "fail"}  # type: ignore[index]
