"""Runs of a matrix: what each cell (QEMU under test, kernel of the host) gave. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.model.rule import Verdict
from harness.report.compare import Comparison, compare
from harness.report.past_run import PastRun
from harness.report.summary import count


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination to judge."""

    name: str
    """Short: ``A``."""
    qemu: str
    kernel: str

    def __str__(self) -> str:
        return f"{self.name}: QEMU {self.qemu}, kernel {self.kernel}"


NOT_RUN: Final = "not run"


@dataclass(frozen=True, slots=True)
class CellRun:
    """One run of a cell, done or not."""

    cell: Cell
    name: str
    """Of the cell, with the number of the run where there is more than one: ``A2``."""
    directory: Path
    """Where its runs go."""
    run: PastRun | None = None
    problem: str = NOT_RUN
    """Why the run says nothing, or not all; empty if it is whole."""
    is_kept: bool = False
    """It was done before, and not done again."""

    @property
    def is_whole(self) -> bool:
        """Say whether every test of it ran."""
        return self.run is not None and not self.problem

    @property
    def counts(self) -> Mapping[str, int]:
        """How many tests have each verdict."""
        return count(self.run.results.values() if self.run is not None else ())

    @property
    def is_green(self) -> bool:
        """Say whether every test ran, none failed or broke, and one passed at least."""
        counts = self.counts
        problems = sum(counts[verdict] for verdict in Verdict if verdict.is_problem)
        return self.is_whole and not problems and bool(counts[Verdict.PASS])


@dataclass(frozen=True, slots=True)
class Matrix:
    """All runs of all cells, those of a cell together."""

    runs: tuple[CellRun, ...]
    is_interrupted: bool = False

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells."""
        return tuple(dict.fromkeys(one.cell for one in self.runs))

    def repeats(self) -> Iterator[tuple[Cell, Comparison]]:
        """Yield each cell that has more than one whole run, with these compared."""
        for cell in self.cells:
            if found := _compared([one for one in self.runs if one.cell == cell]):
                yield cell, found

    def between_cells(self) -> Comparison | None:
        """Return the first whole runs of the cells, compared; None if there are fewer than two."""
        first: dict[Cell, CellRun] = {}
        for one in self.runs:
            if one.is_whole:
                first.setdefault(one.cell, one)
        return _compared(list(first.values()))

    @property
    def unsteady(self) -> tuple[Cell, ...]:
        """Cells whose runs do not say the same, or have not the same tests."""
        return tuple(cell for cell, found in self.repeats() if not found.is_identical(strict=True))

    @property
    def is_fine(self) -> bool:
        """Say whether all runs are green, and all runs of a cell say the same."""
        return not self.is_interrupted and all(r.is_green for r in self.runs) and not self.unsteady


def _compared(runs: list[CellRun]) -> Comparison | None:
    whole = [(one.name, one.run) for one in runs if one.is_whole and one.run is not None]
    if len(whole) < 2:
        return None
    return compare([run for _, run in whole], [name for name, _ in whole])
