"""``trapline shapes``: options and printing; the work is in `shapes` and `mutate_oracle`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

_EXIT_FAILED: Final = 1

EPILOG: Final = (
    "Examples: trapline shapes --time 60 --jobs 2; trapline shapes --count 5000 --seed 7 "
    "--qemu ./build; trapline shapes results/shapes/latest/01-MAP-17.json. Exit status: 0 QEMU "
    "and the oracle agree (known findings apart), 1 they do not; docs/shapes.md says how to read "
    "a disagreement."
)


def shapes(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...",
            help="Saved shapes: look at these again and print them as pictures, make no others.",
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="How many shapes (default 1000, or as --time)."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="S", min=0, help="The same seed makes the same shapes."),
    ] = None,
    qemu: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="QEMU that gets them; it must have vfio-user-pci (default: the QEMU under test "
            "if it has, else debian:trixie-backports).",
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--time", metavar="SECONDS", min=1, help="Begin nothing later than this."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Processes, each with a QEMU of its own.")
    ] = 1,
    mutate: Annotated[
        bool,
        typer.Option(
            "--mutate-oracle",
            help="Switch each rule of the oracle off in turn, and say how soon shapes notice.",
        ),
    ] = False,
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A directory per run goes to shapes/ there.")
    ] = None,
) -> None:
    """Put devices that could exist into a real QEMU; compare its memory maps with the oracle's.

    A shape is a PCI device served from Python over vfio-user, and what firmware does with it:
    BARs placed, moved, laid over each other, switched off and on, behind bridges. No guest runs.
    A shape that disagrees is made as small as it can be, printed and saved.
    """
    from rich.console import Console

    from harness.commands import shapes as work
    from harness.commands.places import Places

    console = Console(stderr=True)
    if files:
        agree = True
        for text, fine in work.replay(files, qemu):
            print(text)
            agree = agree and fine
        raise typer.Exit(0 if agree else _EXIT_FAILED)
    if mutate:
        from harness.commands import mutate_oracle

        noticed = mutate_oracle.run(qemu, 1 if seed is None else seed, seconds or 60.0, console)
        print("\n".join(noticed.lines()))
        raise typer.Exit(0 if noticed.all_noticed else _EXIT_FAILED)
    outcome = work.run_shapes(
        work.ShapesRequest(
            count=count,
            seed=seed,
            qemu=qemu,
            seconds=seconds,
            jobs=jobs,
            results=results or Places.find().results,
        ),
        console,
    )
    for failure in outcome.failures:
        print(f"{failure.picture}\n")
    print("\n".join(outcome.lines()))
    raise typer.Exit(_EXIT_FAILED if outcome.failures else 0)
