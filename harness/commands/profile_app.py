"""The commands below ``trapline profile``: options and printing; the work is in `profile`."""

from __future__ import annotations

from typing import Annotated, Final

import typer

_EXIT_DIFFERS: Final = 1

app = typer.Typer(
    no_args_is_help=True,
    help="Device profiles: what a device must say of itself, and whether one does.",
    epilog="docs/profiles.md says how to write one for a card.",
)

Name = Annotated[
    str, typer.Argument(metavar="NAME|FILE.toml", help="A profile of ours, or a file.")
]


@app.command("list")
def _list() -> None:
    """List the profiles there are."""
    from harness.commands import profile

    for one in profile.all_profiles():
        print(f"{one.name:<10} {one.title}")


@app.command("show", epilog="Example: trapline profile show qat-c62x")
def _show(name: Name) -> None:
    """Print what a profile says, item by item, and the defects that are known."""
    from harness.commands import profile
    from harness.report.profile_view import profile_lines

    print("\n".join(profile_lines(profile.load_profile(name))))


@app.command(
    "check",
    epilog="Example: trapline profile check igb; trapline profile check my-card.toml --host local"
    " --bdf 3b:00.0. Exit status: 0 no item differs, 1 one does.",
)
def _check(
    name: Name,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="virtual: what stands for the device is made; local or ssh://user@name: the"
            " device is looked at, nothing is changed.",
        ),
    ] = None,
    bdf: Annotated[
        str | None,
        typer.Option(metavar="BDF", help="Its physical function, whatever its id."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Hold a device against its profile: each item holds, differs, or could not be asked."""
    import json

    from harness.commands import profile
    from harness.report.profile_view import finding_dict, finding_lines

    checked = profile.check_profile(name, host=host, bdf=bdf)
    words = checked.profile, checked.where, checked.findings
    if as_json:
        print(json.dumps(finding_dict(*words), indent=1, ensure_ascii=False))
    else:
        print("\n".join(finding_lines(*words)))
    raise typer.Exit(0 if checked.holds else _EXIT_DIFFERS)
