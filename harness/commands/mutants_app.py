"""``trapline mutants``: options and printing; the work is in `mutants`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

_EXIT_FAILED: Final = 1

EPILOG: Final = (
    "Example: trapline mutants msix-table-mapped. Exit status: 0 every mutant was noticed by the "
    "rules that must trip, 1 not. docs/mutants.md says how to add one."
)


def mutants(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Mutants (default: all).")
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="Say what there is, run nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
    kernel: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Kernel of hosts, as for trapline run.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The evidence goes to mutants/ there.")
    ] = None,
) -> None:
    """Break QEMU in known ways, run the suites on it, and see that the right rule says so.

    QEMU is built here from Debian's source package: once as it is (about 15 minutes), then for
    each mutant with one patch more (half a minute). The unbroken build must pass first.
    """
    from rich.console import Console

    from harness.commands import mutants as work
    from harness.commands.places import Places
    from harness.images.workshop import Workshop
    from harness.report.build_progress import build_progress

    if listed:
        print("\n".join(work.listing()))
        return
    console = Console(stderr=True)

    def tell(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    with build_progress(console) as progress:
        outcome = work.run_mutants(
            work.MutantsRequest(tuple(names or ()), kernel, results or Places.find().results),
            Workshop(progress=progress),
            tell,
        )
    print(outcome.to_json() if as_json else "\n".join(outcome.lines()))
    raise typer.Exit(0 if outcome.is_fine else _EXIT_FAILED)
