"""Runs beside each other: which tests have not the same verdict in all of them. Pure."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from harness.model.rule import Verdict, overall
from harness.report.past_run import PastRun
from harness.report.results import Result


@dataclass(frozen=True, slots=True)
class Row:
    """One test, and what it said in each run."""

    nodeid: str
    results: tuple[Result | None, ...]
    """In the order of the runs; None where the run has not the test."""

    @property
    def verdicts(self) -> tuple[Verdict | None, ...]:
        """What it said, without the words."""
        return tuple(None if one is None else one.verdict for one in self.results)

    @property
    def overall(self) -> Verdict | None:
        """What the runs say together; None if none has the test."""
        return overall(one.verdict for one in self.results if one is not None)

    def runs_with(self, verdict: Verdict | None) -> tuple[int, ...]:
        """Return the runs, by number, that have the test with *verdict*; without it, for None."""
        return tuple(n for n, one in enumerate(self.verdicts) if one is verdict)

    @property
    def is_absent_somewhere(self) -> bool:
        """Say whether a run has not the test."""
        return None in self.results

    @property
    def is_problem(self) -> bool:
        """Say whether it failed or broke anywhere."""
        return any(one is not None and one.verdict.is_problem for one in self.results)

    def messages(self) -> dict[str, tuple[int, ...]]:
        """Return the first line of each message, and the runs (by number) that said it.

        A test that passed says nothing.
        """
        said: dict[str, tuple[int, ...]] = {}
        for number, one in enumerate(self.results):
            if one is not None and one.verdict is not Verdict.PASS:
                line = one.first_line or "(nothing)"
                said[line] = (*said.get(line, ()), number)
        return said


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs, and in what their verdicts differ."""

    runs: tuple[PastRun, ...]
    names: tuple[str, ...]
    """Short, one for each run: ``A``, ``B``."""
    rows: Mapping[str, Row]
    """All tests by node id, as in the first run that has them."""
    common: int
    """How many tests all runs have."""
    differ: tuple[Row, ...]
    """Tests that all runs have, with more than one verdict; problems first."""
    absent: tuple[Row, ...]
    """Tests that some runs have not: left out by a selection, or not reached, or not there."""
    reasons: tuple[Row, ...]
    """Tests that all runs skip, for more than one reason. No difference."""

    @property
    def partial(self) -> tuple[tuple[str, PastRun], ...]:
        """The runs that are not whole, by name."""
        pairs = zip(self.names, self.runs, strict=True)
        return tuple((name, run) for name, run in pairs if not run.is_whole)

    def is_identical(self, *, strict: bool = False) -> bool:
        """Say whether the runs say the same: whole runs, and no test with two verdicts.

        :param strict: a test that a run has not is a difference too.
        """
        return not (self.differ or self.partial or (strict and self.absent))

    def absent_by_runs(self) -> Counter[tuple[str, ...]]:
        """Return how many tests are only in these runs (by name), for each such set."""
        return Counter(
            tuple(
                name for name, one in zip(self.names, row.results, strict=True) if one is not None
            )
            for row in self.absent
        )

    def subject(self) -> dict[str, tuple[str, ...]]:
        """Return the facts in which the subjects differ: name to one value for each run."""
        facts = dict.fromkeys(name for run in self.runs for name in run.subject)
        found = {name: tuple(run.subject.get(name, "-") for run in self.runs) for name in facts}
        return {name: values for name, values in found.items() if len(set(values)) > 1}


def compare(runs: Sequence[PastRun], names: Sequence[str] = ()) -> Comparison:
    """Put *runs* beside each other; tests come as in the first run that has them.

    :param names: one for each run; empty: ``A``, ``B``, …
    """
    known = {row.nodeid: row for row in _rows([run.results for run in runs])}
    rows = sorted(known.values(), key=lambda row: not row.is_problem)
    everywhere = [row for row in rows if not row.is_absent_somewhere]
    return Comparison(
        runs=tuple(runs),
        names=tuple(names) or tuple(name for name, _ in zip(letters(), runs, strict=False)),
        rows=known,
        common=len(everywhere),
        differ=tuple(row for row in everywhere if len(set(row.verdicts)) > 1),
        absent=tuple(row for row in rows if row.is_absent_somewhere),
        reasons=tuple(
            row
            for row in everywhere
            if set(row.verdicts) == {Verdict.SKIP} and len(row.messages()) > 1
        ),
    )


def _rows(runs: Sequence[Mapping[str, Result]]) -> Iterator[Row]:
    for nodeid in dict.fromkeys(nodeid for results in runs for nodeid in results):
        yield Row(nodeid, tuple(results.get(nodeid) for results in runs))


def letters() -> Iterator[str]:
    """Yield A to Z, then AA, AB, …"""
    yield from string.ascii_uppercase
    for first in letters():
        yield from (first + second for second in string.ascii_uppercase)
