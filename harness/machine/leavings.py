"""What a QEMU left in its directory becomes evidence."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.errors import HarnessError
from harness.machine.place import Process

log = logging.getLogger(__name__)


def keep_what_it_left(name: str, process: Process, evidence: Path) -> None:
    """Keep the logs of *process*, which has ended, in *evidence*; never raises.

    ``qemu.log`` is there always; QEMU's own log of the console only if ours is not.
    """
    left: Mapping[str, bytes] = {}
    with _going_on(name, "what it left"):
        left = process.left()
    for file in ("qemu.log", "trace.log", "console.log"):
        content = left.get(file, b"")
        if file != "qemu.log" and not content:
            continue
        if file == "console.log" and (evidence / file).exists():
            continue
        with _going_on(name, file):
            (evidence / file).write_bytes(content)


@contextlib.contextmanager
def _going_on(name: str, what: str) -> Iterator[None]:
    """The place may be gone, our disk full: say it, keep the rest, end the machine."""
    try:
        yield
    except Exception as error:
        why = error.summary if isinstance(error, HarnessError) else repr(error)
        log.warning("%s: could not collect %s: %s", name, what, why)
