"""The commands below ``trapline images``: options and printing; the work is in `images`."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="See, build, check and remove images: kernels, the virtual host, its guest, QEMU builds.",
    epilog="Images are made from packages of the Debian mirror that this machine uses "
    "(TRAPLINE_MIRROR and TRAPLINE_KEYRING name another), without root; nothing is installed. "
    "The network is needed once.",
)

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]...",
        help="kernel, host, …, the beginning of a key, or both: kernel/330a.",
    ),
]


@app.command("list", epilog="Example: trapline images list --json")
def _list(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List what is in the cache: name, key, size, age, packages, path."""
    import json

    from harness.commands import images, prune

    found = images.rows()
    if as_json:
        print(json.dumps(images.as_json(found), indent=1))
    elif not found:
        print("no images; trapline images build makes them")
    else:
        print("\n".join(images.as_lines(found)))
        print(f"{len(found)} images, {images.human_size(sum(row.size for row in found))}")
    if not as_json and (line := prune.hint_line()):
        print(line)


@app.command(
    "build", epilog="Example: trapline images build kernel guest --kernel debian:trixie-backports"
)
def _build(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="probe, kernel, host, guest, qemu (all of these), ap-host, qemu-aarch64.",
        ),
    ] = None,
    kernel: Annotated[
        str,
        typer.Option(
            "--kernel",
            metavar="SPEC",
            help="debian:SUITE, built:SERIES or BZIMAGE[:MODULES_DIR].",
        ),
    ] = "",
    qemu: Annotated[
        str,
        typer.Option(
            "--qemu",
            metavar="SPEC",
            help="system, debian:SUITE, a binary or a build directory.",
        ),
    ] = "debian:trixie",
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Look for newer packages on the mirror.")
    ] = False,
) -> None:
    """Make images that are not there yet; at other times they are made when needed."""
    from harness.commands import images
    from harness.report.build_progress import build_progress

    with build_progress() as progress:
        for built in images.build(
            names or (), kernel=kernel, qemu=qemu, refresh=refresh, progress=progress
        ):
            print(built.line(), flush=True)


@app.command("verify", epilog="Example: trapline images verify kernel")
def _verify(names: Names = None) -> None:
    """Compute every hash and compare; exit 1 if an image is damaged."""
    from harness.commands import images

    damaged = 0
    for row, problem in images.verify(names or ()):
        damaged += bool(problem)
        print(f"{row.name:<14} {row.key}  {problem or 'whole'}", flush=True)
    if damaged:
        print("damaged images are made again when they are next needed")
        raise typer.Exit(1)


@app.command("rm", epilog="Example: trapline images rm qemu/74c9")
def _rm(
    names: Names = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Remove all images and downloaded packages.")
    ] = False,
) -> None:
    """Remove images; that loses nothing but the time to make them again."""
    from harness.commands import images

    removed = images.remove(names or (), everything=everything)
    for row in removed:
        print(f"removed {row.name} {row.key} ({images.human_size(row.size)})")
    if not removed:
        print("there are no images")


@app.command(
    "prune",
    epilog="Example: trapline images prune --dry-run. Never removed: the environment that the "
    "command itself runs in, and one that a process uses. A checkout whose environment went makes "
    "another one when it next starts.",
)
def _prune(
    unused: Annotated[
        float,
        typer.Option("--unused", metavar="DAYS", help="Remove what no command used for so long."),
    ] = 30,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Remove nothing, only list them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Remove Python environments of ./trapline: unused, broken off, or without their checkout."""
    import json

    from harness.commands import prune

    found = prune.judged(unused, dry_run=dry_run)
    if as_json:
        print(json.dumps(prune.as_json(found), indent=1))
    else:
        print("\n".join(prune.as_lines(found, dry_run=dry_run)))
