"""Run ``trapline`` as a child, show what it prints, and keep it beside its results."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Final, TextIO

from harness import process
from harness.report.matrix_view import OUTPUT

GRACE: Final = 120.0
"""Seconds that a run has to end in good order: machines to stop, a host to put back."""
_DRAIN: Final = 10.0
"""Seconds for the last lines, should something that the run left behind hold the pipe open."""


def child_runner(
    command_of: Callable[[Sequence[str]], Sequence[str]], out: TextIO
) -> Callable[[Sequence[str], Path, str], int]:
    """Return what runs a command line in a child that dies with us.

    Ctrl-C (or any exception) ends the child as Ctrl-C would; a second one ends it at once.

    :param command_of: from arguments of ``trapline`` to a command line.
    :param out: where its lines go: as they are on a terminal, else each with the short name.
    """

    def run(arguments: Sequence[str], directory: Path, label: str) -> int:
        prefix = "" if out.isatty() else f"{label} "
        width = shutil.get_terminal_size((100, 24)).columns - len(prefix)
        env = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": str(max(width, 40))}
        with (directory / OUTPUT).open("wb") as log:
            child = process.start(
                command_of(arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env
            )
            copier = threading.Thread(
                target=_copy, args=(child.stdout, log, out, prefix), name="output", daemon=True
            )
            copier.start()
            try:
                return child.wait()
            except BaseException:
                process.kill(child, grace=GRACE)
                raise
            finally:
                process.kill(child)
                copier.join(_DRAIN)

    return run


def _copy(source: IO[bytes], log: IO[bytes], out: TextIO, prefix: str) -> None:
    with source:
        for line in source:
            log.write(line)
            log.flush()
            print(prefix + line.decode(errors="replace").rstrip("\r\n"), file=out, flush=True)
