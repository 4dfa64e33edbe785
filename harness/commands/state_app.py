"""The commands below ``trapline state``: options and printing; the work is in `state`."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="See, check and remove saved states: virtual hosts that were up, to be gone on with.",
    epilog="A state is made when a run first needs it and takes the place of boots from then on "
    "(trapline run --no-saved-state boots all the same). All together take no more than 8 GiB, "
    "or TRAPLINE_STATES_CAP bytes: what was not used for longest goes.",
)

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]...",
        help="host, nested, the beginning of a key, or both: nested/330a.",
    ),
]


@app.command("list", epilog="Example: trapline state list --json")
def _list(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List what is kept: name, key, size on the disk, age, last use, what it is of."""
    import json

    from harness.commands import state
    from harness.commands.images import human_size

    found = state.rows()
    if as_json:
        print(json.dumps(state.as_json(found), indent=1))
    elif not found:
        print("no saved states; a run makes them")
    else:
        print("\n".join(state.as_lines(found)))
        print(f"{len(found)} saved states, {human_size(sum(row.size for row in found))}")


@app.command("verify", epilog="Example: trapline state verify nested")
def _verify(names: Names = None) -> None:
    """Compute every hash and compare; exit 1 if a state is damaged."""
    from harness.commands import state

    damaged = 0
    for row, problem in state.verify(names or ()):
        damaged += bool(problem)
        print(f"{row.name:<7} {row.key}  {problem or 'whole'}", flush=True)
    if damaged:
        print("damaged states are made again when they are next needed")
        raise typer.Exit(1)


@app.command("rm", epilog="Example: trapline state rm nested/74c9")
def _rm(
    names: Names = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all states.")] = False,
) -> None:
    """Remove states; that loses nothing but the time to make them again."""
    from harness.commands import state
    from harness.commands.images import human_size

    removed = state.remove(names or (), everything=everything)
    for row in removed:
        print(f"removed {row.name} {row.key} ({human_size(row.size)})")
    if not removed:
        print("there are no saved states")
