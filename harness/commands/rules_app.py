"""``trapline rules``: options and printing; the work is in `rules`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

EPILOG: Final = (
    "Example: trapline rules --section MAP --uncovered. What one computer cannot run, another "
    "can: trapline rules --run results --run other/results tells what they show together."
)


def rules(
    name: Annotated[
        str, typer.Argument(metavar="[MAP-02]", help="The same as --section.", show_default=False)
    ] = "",
    uncovered: Annotated[
        bool, typer.Option("--uncovered", help="Only rules that no test cites though one could.")
    ] = False,
    section: Annotated[
        str, typer.Option(metavar="MAP", help="A series (MAP), section (C) or rule (MAP-02).")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
    controls: Annotated[
        bool, typer.Option("--controls", help="Show what each negative control said.")
    ] = False,
    run: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR",
            help="A run that counts (default: the last); give it once for each. A directory of "
            "results stands for its latest run, one of trapline matrix for all its runs.",
        ),
    ] = None,
) -> None:
    """Show for each rule its tests, its negative controls and its last verdict."""
    from harness.commands import rules as work
    from harness.report import coverage_view as view
    from harness.report.compare_view import run_lines

    found = work.runs_that_count(run or ())
    covered = work.rule_coverage(found, section=section or name, uncovered=uncovered)
    if as_json:
        print(view.as_json(covered, found, controls=controls))
        return
    if controls:
        lines = [*view.controls_lines(covered)] or ["no negative control"]
        print("\n".join([*lines, *run_lines(found), *view.elsewhere_lines(covered, found)]))
        return
    from rich.console import Console

    Console().print(view.as_table(covered, found))
    lines = [*view.reasons_lines(covered, found), *run_lines(found), view.counts_line(covered)]
    print("\n".join(lines))
