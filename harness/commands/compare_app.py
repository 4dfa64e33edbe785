"""``trapline compare``: options and printing; the work is in `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

_EXIT_DIFFERS: Final = 1

EPILOG: Final = (
    "Example: trapline compare results/20261121-074039-e7b8 results. Exit status: 0 identical, "
    "1 a verdict differs or a run is incomplete, 2 a run cannot be read or wrong usage."
)


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="Directories of runs; a directory of results stands for its latest run.",
        ),
    ],
    reasons: Annotated[
        bool, typer.Option("--reasons", help="Show tests skipped for unlike reasons too.")
    ] = False,
    absent: Annotated[
        bool, typer.Option("--absent", help="List every test that is not in every run.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="A test that is not in every run is a difference.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Say which tests have not the same verdict in all of these runs.

    One row per such test: its verdict in each run, and what it said where it did not pass.
    Tests that some runs have not are counted apart. Needs no host.
    """
    import json

    from harness.commands import compare as work
    from harness.report.compare_view import compare_dict, compare_lines

    found = work.compare_runs(runs)
    if as_json:
        print(json.dumps(compare_dict(found, strict=strict), indent=1, ensure_ascii=False))
    else:
        lines = compare_lines(found, reasons=reasons, absent=absent, strict=strict)
        print("\n".join(lines))
    raise typer.Exit(0 if found.is_identical(strict=strict) else _EXIT_DIFFERS)
