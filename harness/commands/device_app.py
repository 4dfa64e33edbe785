"""The commands below ``trapline device``: options and printing; the work is in `device`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="PCI devices written in Python, for QEMU's vfio-user-pci.",
    epilog="docs/python-devices.md shows how to write one; examples/doorbell.py is one.",
)


@app.callback()
def _devices() -> None:
    """Make `serve` a command of its own; typer leaves out the name of an only one."""


@app.command("serve", epilog="Example: trapline device serve examples/doorbell.py --once")
def _serve(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Python file with the device.")],
    name: Annotated[
        str, typer.Option(metavar="CLASS", help="Which class, if the file has several.")
    ] = "",
    socket: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Where to listen; by default a private directory."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when the first client has gone.")] = (
        False
    ),
) -> None:
    """Serve a device until it is interrupted; then say what was asked of it."""
    import signal
    import threading

    from harness.commands import device

    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    for line in device.serve_file(file, name=name, socket=socket, once=once, stop=stop):
        print(line, flush=True)
