"""The commands below ``trapline ap``: options and printing; the work is in `ap`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.model.ap.plan import Free

CONFLICTS = 1

app = typer.Typer(
    no_args_is_help=True,
    help="AP queues (crypto adapters of IBM Z) for guests: plan them before anything is touched.",
)


@app.callback()
def _ap() -> None:
    """Keep ``plan`` a word of its own."""


@app.command(
    "plan",
    epilog="Examples: trapline ap plan web=5,6:4,0xab db=5:0x47,0xff --free domains. "
    "trapline ap plan guests.toml --host-tree / --write plan. trapline ap plan --host-tree / "
    "looks at this host only. Exit status: 0, or 1 if the kernel would refuse something.",
)
def _plan(
    wish: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="GUEST|FILE",
            help="NAME=ADAPTERS:DOMAINS:CONTROL, numbers decimal or with 0x, ranges"
            " 8-11; control domains are the domains unless given (NAME=5:4: gives none). Or a TOML"
            " file: a table guest.NAME with adapters, domains, control_domains, uuid.",
        ),
    ] = None,
    free: Annotated[
        Free,
        typer.Option(
            help="How queues are taken from the host: by their adapters (apmask), by their domains"
            " (aqmask), or each by a driver override (Linux 6.19 and later)."
        ),
    ] = Free.ADAPTERS,
    kernel: Annotated[
        str, typer.Option(metavar="VERSION", help="The host's kernel: its answers differ.")
    ] = "6.12",
    host_tree: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE",
            help="Plan on this host: / is the one you are on, else a directory with a copy of its"
            " sys/bus/ap, sys/devices/ap and sys/devices/vfio_ap, or a recording of them"
            " (docs/ap-plan.md). Without: a host that has just what is wished for.",
        ),
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Print only the table of adapters and domains.")
    ] = False,
    brief: Annotated[
        bool, typer.Option("--brief", help="Leave out the commands that carry the plan out.")
    ] = False,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the table as a picture.")
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the sysfs writes as a script, and definitions for libvirt and mdevctl.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what gives guests these queues, and what the kernel answers, write by write.

    Prints masks, mediated devices, sysfs writes in both syntaxes, chzdev, virsh nodedev-define
    and mdevctl commands, and every conflict with the errno. Nothing is written to a host.
    """
    import json

    from harness.commands import ap
    from harness.errors import ConfigError
    from harness.model.ap.table import table_of_host, table_of_plan
    from harness.report import ap_view
    from harness.report.ap_picture import table_picture

    guests = ap.read_wish(wish or ())
    host = None if host_tree is None else ap.read_host(host_tree, kernel)
    if not guests and host is None:
        raise ConfigError(
            "no guests, and no host to look at",
            hint="trapline ap plan web=5,6:4,0xab, or --host-tree / to look at this host",
        )
    made = ap.plan(guests, free=free, kernel=kernel, host=host)
    drawn = table_of_plan(made) if guests else table_of_host(made.end)
    if as_json:
        print(json.dumps(ap.as_json(made), indent=1))
    elif table:
        print("\n".join(ap_view.table_lines(drawn)))
    elif guests:
        print("\n".join(ap_view.brief_lines(made) if brief else ap_view.plan_lines(made)))
    else:
        print("\n".join(ap_view.host_lines(made.start)))
    written = [] if svg is None else [ap.write_text(svg, table_picture(drawn, title="AP queues"))]
    written += [] if write is None else ap.write_files(made, write)
    for path in written:
        typer.echo(f"trapline: wrote {path}", err=True)
    raise typer.Exit(CONFLICTS if made.conflicts else 0)
