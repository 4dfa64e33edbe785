"""What was changed on a host, written down before it is changed.

One file per host under the state directory, one JSON object a line: a ``change`` holds what
was there before; an ``undone`` names the change that was put back. What has no ``undone`` is
pending, after a crash too: ``trapline restore`` reads the same file.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import paths
from harness.model.pci import Bdf


@dataclass(frozen=True, slots=True)
class DriverChange:
    """A function that is about to get another driver."""

    number: int
    bdf: str
    driver: str
    """The driver it had; empty for none."""
    override: str
    """The ``driver_override`` it had; empty for none."""


class Journal:
    """The journal of one host.

    :param path: its file; None keeps it in memory, for hosts that are thrown away.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._pending: dict[int, DriverChange] = {}
        self._next = 0
        if path is not None and path.exists():
            for entry in _entries(path):
                self._take(entry)

    @classmethod
    def of_host(cls, url: str) -> Journal:
        """Open the journal of the host named by *url*."""
        directory = paths.state_dir() / "journal"
        directory.mkdir(parents=True, exist_ok=True)
        return cls(directory / (re.sub(r"[^A-Za-z0-9.@-]+", "_", url) + ".jsonl"))

    def _take(self, entry: dict[str, object]) -> None:
        if "undone" in entry:
            self._pending.pop(int(str(entry["undone"])), None)
            return
        change = DriverChange(
            number=int(str(entry["number"])),
            bdf=str(entry["bdf"]),
            driver=str(entry["driver"]),
            override=str(entry["override"]),
        )
        self._pending[change.number] = change
        self._next = max(self._next, change.number + 1)

    def driver(self, bdf: Bdf, *, driver: str | None, override: str | None) -> DriverChange:
        """Write down what *bdf* has now; return only when it is on disk."""
        change = DriverChange(self._next, str(bdf), driver or "", override or "")
        self._next += 1
        self._write({"time": time.time(), **asdict(change)})
        self._pending[change.number] = change
        return change

    def undone(self, change: DriverChange) -> None:
        """Write down that *change* was put back."""
        self._write({"time": time.time(), "undone": change.number})
        self._pending.pop(change.number, None)

    def pending(self) -> tuple[DriverChange, ...]:
        """Return what is still to be put back, newest first."""
        return tuple(sorted(self._pending.values(), key=lambda c: -c.number))

    def _write(self, entry: dict[str, object]) -> None:
        if self.path is None:
            return
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")
            stream.flush()
            os.fsync(stream.fileno())


def _entries(path: Path) -> Iterator[dict[str, object]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            # A line cut by a crash was never followed by a change: nothing to put back.
            continue


def journals() -> tuple[Path, ...]:
    """Return the journal files there are."""
    return tuple(sorted((paths.state_dir() / "journal").glob("*.jsonl")))
