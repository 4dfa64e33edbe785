"""``trapline matrix``: options and printing; the work is in `matrix`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

_EXIT_NOT_FINE: Final = 1
_EXIT_INTERRUPTED: Final = 130

EPILOG: Final = (
    "Example: trapline matrix MAP VTD --qemu debian:trixie --qemu ./build --kernel debian:trixie "
    "--kernel debian:trixie-backports --times 2. The same line again goes on where Ctrl-C or a "
    "power cut ended it. Exit status: 0 all cells are green and repeats say the same, 1 not, "
    "2 wrong usage, 130 interrupted. docs/matrix.md says how to read what it prints."
)


def matrix(
    selection: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SELECTION",
            help="As for trapline run: areas, files, tests, rules or series; default: all.",
        ),
    ] = None,
    qemu: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEC", help="A QEMU under test; give it once for each."),
    ] = None,
    kernel: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEC", help="A kernel of the host; give it once for each."),
    ] = None,
    guest_kernel: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Kernel of the guest, for all cells.")
    ] = None,
    keyword: Annotated[str, typer.Option("-k", metavar="EXPR", help="As in pytest.")] = "",
    full: Annotated[
        bool, typer.Option("--full", help="Every area and test, as for trapline run.")
    ] = False,
    times: Annotated[
        int, typer.Option(metavar="N", min=1, help="Runs of each cell: all once, then all again.")
    ] = 1,
    workers: Annotated[
        str | None, typer.Option("-n", metavar="N|auto", help="As for trapline run.")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A directory per cell goes here (results/matrix)."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Run also the cells that are done.")
    ] = False,
    only_show: Annotated[
        bool, typer.Option("--show", help="Run nothing, show what is done.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON at the end instead.")
    ] = False,
) -> None:
    """Run the suites on every QEMU with every kernel, and compare what they say.

    Each cell is a trapline run of its own, one after the other; one that fails does not stop the
    others. At the end: a row per run, then the tests in which repeats of a cell differ (always a
    finding), then those in which cells differ. A cell that is done is not run again, unless one
    of its files changed (your build) or --again is given. Progress and what the runs print go to
    the standard error output, and to output.txt in the directory of the cell.
    """
    import json

    from harness import process
    from harness.commands import matrix as work
    from harness.commands.matrix_runner import child_runner
    from harness.commands.run import parse_workers
    from harness.report.matrix_view import matrix_dict, matrix_lines

    parse_workers(workers)
    request = work.MatrixRequest(
        selection=tuple(selection or ()),
        qemus=tuple(qemu or ()),
        kernels=tuple(kernel or ()),
        guest_kernel=guest_kernel,
        keyword=keyword,
        full=full,
        times=times,
        workers=workers,
        results=results,
    )

    def tell(line: str) -> None:
        print(f"trapline matrix: {line}", file=sys.stderr, flush=True)

    process.stop_like_ctrl_c()
    run = child_runner(work.command_of, sys.stderr)
    found = work.run_matrix(request, tell, run, again=again, only_show=only_show)
    if as_json:
        print(json.dumps(matrix_dict(found), indent=1, ensure_ascii=False))
    else:
        print("\n".join(matrix_lines(found)))
    if found.is_interrupted:
        tell(f"interrupted; go on with: {request.command()}")
        raise typer.Exit(_EXIT_INTERRUPTED)
    raise typer.Exit(0 if found.is_fine else _EXIT_NOT_FINE)
