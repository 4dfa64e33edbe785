"""What a matrix of runs is told like: for people and for machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.model.rule import Verdict
from harness.report.compare_view import (
    compare_dict,
    counts,
    difference_lines,
    relative,
    subject_lines,
)
from harness.report.matrix import NOT_RUN, CellRun, Matrix

OUTPUT = "output.txt"
"""File beside the runs of a cell: all that they printed."""
_LEFT = 3
"""Columns of words; the others are numbers."""


def matrix_lines(found: Matrix) -> Iterator[str]:
    """Yield the table of runs, what repeats differ in, what cells differ in, the last line."""
    yield from _table(found)
    for cell, comparison in found.repeats():
        yield from ("", f"repeats of {cell.name}: {counts(comparison, strict=True)}")
        yield from difference_lines(comparison)
    if between := found.between_cells():
        yield from ("", f"between cells ({', '.join(between.names)}): {counts(between)}")
        yield from subject_lines(between)
        yield from difference_lines(between)
    yield from ("", last_line(found))


def last_line(found: Matrix) -> str:
    """Return ``4 cells, 8 runs: all green, repeats identical``, or what is not so."""
    said = f"{_many(len(found.cells), 'cell')}, {_many(len(found.runs), 'run')}: "
    complaints = []
    if waiting := [one.name for one in found.runs if one.run is None and not one.is_whole]:
        complaints.append(f"without results: {' '.join(waiting)}")
    if partial := [one.name for one in found.runs if one.run is not None and not one.is_whole]:
        complaints.append(f"INCOMPLETE: {' '.join(partial)}")
    if red := [one.name for one in found.runs if one.is_whole and not one.is_green]:
        complaints.append(f"not green: {' '.join(red)}")
    if unsteady := [cell.name for cell in found.unsteady]:
        complaints.append(f"REPEATS DIFFER: {' '.join(unsteady)}")
    if complaints:
        return said + "; ".join(complaints)
    return said + "all green" + (", repeats identical" if any(found.repeats()) else "")


def matrix_dict(found: Matrix) -> dict[str, object]:
    """Return the same for ``--json``."""
    between = found.between_cells()
    return {
        "fine": found.is_fine,
        "interrupted": found.is_interrupted,
        "runs": [
            {
                "name": one.name,
                "cell": one.cell.name,
                "qemu": one.cell.qemu,
                "kernel": one.cell.kernel,
                "directory": str(one.directory),
                "run": None if one.run is None else str(one.run.path),
                "whole": one.is_whole,
                "green": one.is_green,
                "problem": one.problem,
                "kept": one.is_kept,
                "seconds": None if one.run is None else one.run.seconds,
                "counts": dict(one.counts),
            }
            for one in found.runs
        ],
        "repeats": {cell.name: compare_dict(one, strict=True) for cell, one in found.repeats()},
        "between_cells": None if between is None else compare_dict(between),
    }


def _table(found: Matrix) -> Iterator[str]:
    rows = [["", "QEMU", "kernel", *Verdict, "time"]]
    rows += [
        [one.name, one.cell.qemu, one.cell.kernel, *_numbers(one), _seconds(one)]
        for one in found.runs
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    yield _line(rows[0], widths)
    for one, row in zip(found.runs, rows[1:], strict=True):
        yield (_line(row, widths) + _remark(one)).rstrip()


def _numbers(one: CellRun) -> list[str]:
    return [str(number) if one.run is not None else "-" for number in one.counts.values()]


def _seconds(one: CellRun) -> str:
    return "-" if one.run is None else f"{one.run.seconds:.0f} s"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        f"{word:<{width}}" if at < _LEFT else f"{word:>{width}}"
        for at, (word, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _remark(one: CellRun) -> str:
    results = one.run.results.values() if one.run is not None else ()
    again = sum(bool(result.again) for result in results)
    return _state(one) + (f"  {_many(again, 'test')} run again" if again else "")


def _state(one: CellRun) -> str:
    if one.problem == NOT_RUN:
        return f"  {one.problem}"
    if one.problem:
        return f"  INCOMPLETE: {one.problem}; {relative(one.directory / OUTPUT)}"
    if one.is_kept and one.run is not None:
        return f"  done before, {one.run.began.replace('T', ' ')[:16]}"
    return ""


def _many(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
