"""What a comparison of runs is told like: for people and for machines."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harness.report.compare import Comparison, Row
from harness.report.past_run import PastRun
from harness.report.summary import count, counts_line

LISTED = 20
"""Tests that are absent somewhere are listed up to this number, problems always."""
_ABSENT = "-"


def compare_lines(
    found: Comparison, *, reasons: bool = False, absent: bool = False, strict: bool = False
) -> Iterator[str]:
    """Yield the runs, the tests that differ, those that some runs have not, and the counts.

    :param reasons: show skips with unlike reasons too.
    :param absent: list every test that is absent somewhere, however many.
    :param strict: such a test is a difference.
    """
    yield from run_lines(found)
    yield from difference_lines(found, reasons=reasons, absent=absent)
    yield counts(found, strict=strict)


def difference_lines(
    found: Comparison, *, reasons: bool = False, absent: bool = False
) -> Iterator[str]:
    """Yield the tests that differ and those that some runs have not, without runs and counts."""
    if found.differ:
        yield from ("", f"not the same verdict ({len(found.differ)})")
        yield from _rows(found, found.differ)
    if found.absent:
        where = ", ".join(
            f"{number} in {' '.join(names)} only"
            for names, number in found.absent_by_runs().items()
        )
        listed = [one for one in found.absent if one.is_problem]
        if absent or len(found.absent) <= LISTED:
            listed = list(found.absent)
        rest = len(found.absent) - len(listed)
        more = f"; {rest} that passed or were skipped not listed, --absent does" if rest else ""
        yield from ("", f"not in every run ({len(found.absent)}): {where}{more}")
        yield from _rows(found, listed)
    if reasons and found.reasons:
        yield from ("", f"skipped for unlike reasons ({len(found.reasons)}), no difference")
        yield from _rows(found, found.reasons)


def counts(found: Comparison, *, strict: bool = False) -> str:
    """Return the last line: ``12 tests in 2 runs: identical``, or ``2 of 12 differ``."""
    tests = "1 test" if found.common == 1 else f"{found.common} tests"
    said = f"{tests} in {len(found.runs)} runs: "
    said += f"{len(found.differ)} of {found.common} differ" if found.differ else "identical"
    if found.absent:
        said += f"; {len(found.absent)} not in every run"
        said += ", which counts (--strict)" if strict else ""
    if unknown := [name for name, run in _named(found) if run.unknown]:
        said += f"; SUBJECT UNKNOWN: {' '.join(unknown)}"
    if found.partial:
        said += f"; INCOMPLETE: {' '.join(name for name, _ in found.partial)}"
    return said


def compare_dict(found: Comparison, *, strict: bool = False) -> dict[str, object]:
    """Return the same for ``--json``."""
    return {
        "identical": found.is_identical(strict=strict),
        "runs": [
            {
                "name": name,
                "path": str(run.path),
                "whole": run.is_whole,
                "lacks": run.lacks,
                "began": run.began,
                "seconds": run.seconds,
                "counts": count(run.results.values()),
                "subject": run.subject,
                "settings": run.settings,
            }
            for name, run in zip(found.names, found.runs, strict=True)
        ],
        "common": found.common,
        "differ": [_row_dict(found, row) for row in found.differ],
        "absent": [_row_dict(found, row) for row in found.absent],
        "reasons": [_row_dict(found, row) for row in found.reasons],
    }


def relative(path: Path) -> str:
    """Return *path* as seen from here, if it is below."""
    here = Path.cwd()
    return os.fspath(path.relative_to(here) if path.is_relative_to(here) else path)


def run_lines(found: Comparison) -> Iterator[str]:
    """Yield what the runs are called, where they are, and in what their subjects differ."""
    width = max(map(len, found.names), default=0)
    indent = " " * (width + 2)
    for name, run in _named(found):
        yield f"{name:<{width}}  {relative(run.path)}"
        yield f"{indent}{_facts(run)}"
        if not run.is_whole:
            yield f"{indent}INCOMPLETE: {run.lacks}"
        if run.unknown:
            yield f"{indent}SUBJECT UNKNOWN: {run.unknown}"
    yield from subject_lines(found)


def subject_lines(found: Comparison) -> Iterator[str]:
    """Yield the facts in which what was judged differs, and whose is which."""
    for fact, values in found.subject().items():
        yield f"{fact}:"
        for value in dict.fromkeys(values):
            who = [name for name, one in zip(found.names, values, strict=True) if one == value]
            yield f"  {' '.join(who)}: {value.partition(chr(10))[0]}"


def _named(found: Comparison) -> Iterator[tuple[str, PastRun]]:
    return zip(found.names, found.runs, strict=True)


def _facts(run: PastRun) -> str:
    parts = [run.began.replace("T", " ")] if run.began else []
    parts += [f"{run.seconds:.0f} s"] if run.seconds else []
    return "; ".join([*parts, counts_line(count(run.results.values()))])


def _rows(found: Comparison, rows: Sequence[Row]) -> Iterator[str]:
    """Yield a line per test, its verdicts in columns, and below what it said where."""
    if not rows:
        return
    widths = [max(5, len(name)) for name in found.names]
    yield f"  {_columns(found.names, widths)}".rstrip()
    for row in rows:
        words = [_ABSENT if one is None else str(one) for one in row.verdicts]
        yield f"  {_columns(words, widths)}  {row.nodeid}"
        for line, numbers in row.messages().items():
            who = " ".join(found.names[number] for number in numbers)
            yield f"  {'':{sum(widths) + 2 * len(widths) - 2}}    {who}: {line}"


def _columns(words: Iterable[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{word:<{w}}" for word, w in zip(words, widths, strict=True))


def _row_dict(found: Comparison, row: Row) -> dict[str, object]:
    pairs = list(zip(found.names, row.results, strict=True))
    return {
        "test": row.nodeid,
        "rules": sorted({rule for one in row.results if one for rule in one.rules}),
        "verdicts": {name: None if one is None else str(one.verdict) for name, one in pairs},
        "messages": {
            name: one.first_line for name, one in pairs if one is not None and one.message
        },
    }
