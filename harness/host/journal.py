"""What was changed on a host, written down before it is changed.

One file per host under the state directory, one JSON object a line: a ``host`` names it, a
``change`` holds what was there before; an ``undone`` names the change that was put back. What
has no ``undone`` is pending, after a crash too: ``trapline restore`` reads the same file.
Several runs may write to one file; each puts back what it changed itself, and what a dead run
had changed before it.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import filelock

from harness import paths
from harness.host.locks import host_slug
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
    group: str = ""
    """Name of the lock that the run held meanwhile (`harness.host.locks`)."""
    boot: str = ""
    """Boot id of the host at that time: after a reboot nothing is left to put back."""

    def __str__(self) -> str:
        return f"{self.bdf}: driver {self.driver or 'none'}" + (
            f", override {self.override}" if self.override else ""
        )


@dataclass(frozen=True, slots=True)
class AttributeChange:
    """An attribute that is about to be written, and what is written to put it back.

    For a thing that is about to be made, the attribute that removes it.
    """

    number: int
    path: str
    text: str
    group: str = ""
    """Name of the lock that the run held meanwhile (`harness.host.locks`)."""
    boot: str = ""
    """Boot id of the host at that time: after a reboot nothing is left to put back."""

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


Change = DriverChange | AttributeChange
_C = TypeVar("_C", DriverChange, AttributeChange)


class Journal:
    """The journal of one host.

    :param path: its file; None keeps it in memory, for hosts that are thrown away.
    :param url: how the host is reached, for those who restore it later.
    :param boot: boot id of the host now.
    """

    def __init__(self, path: Path | None, *, url: str = "", boot: str = "") -> None:
        self.path = path
        self.url = url
        self.boot = boot
        self._pending: dict[int, Change] = {}
        self._ours: set[int] = set()
        self._next = 0
        self._written_url = ""
        self._refresh()
        self.url = self.url or self._written_url

    @classmethod
    def of_host(cls, name: str, *, url: str = "", boot: str = "") -> Journal:
        """Open the journal of the host called *name* (`harness.host.physical.canonical`)."""
        directory = paths.state_dir() / "journal"
        directory.mkdir(parents=True, exist_ok=True)
        return cls(directory / f"{host_slug(name)}.jsonl", url=url or name, boot=boot)

    def driver(
        self, bdf: Bdf, *, driver: str | None, override: str | None, group: str = ""
    ) -> DriverChange:
        """Write down what *bdf* has now; return only when it is on disk.

        What a dead run has left changed is taken over instead: what it found is what has to
        come back. The caller holds the lock of the group, so that run is dead.
        """
        with self._exclusive():
            if left := self._take_over(DriverChange, lambda change: change.bdf == str(bdf)):
                return left
            change = DriverChange(
                self._next, str(bdf), driver or "", override or "", group, self.boot
            )
            self._add(change)
        return change

    def attribute(self, path: str, text: str, *, group: str = "") -> AttributeChange:
        """Write down that writing *text* to *path* puts back what is about to be changed.

        Return only when it is on disk. What a dead run has left changed is taken over, as by
        `driver`; the caller holds the lock *group*.
        """
        with self._exclusive():
            if left := self._take_over(AttributeChange, lambda change: change.path == path):
                return left
            change = AttributeChange(self._next, path, text, group, self.boot)
            self._add(change)
        return change

    def _take_over(self, kind: type[_C], same: Callable[[_C], bool]) -> _C | None:
        """Make the first change ours that others left in this boot; cross out what came later.

        Whoever changed a thing twice found the second time what it had made itself.
        """
        left = [
            change
            for change in reversed(self.pending())
            if change.number not in self._ours
            and change.boot == self.boot
            and isinstance(change, kind)
            and same(change)
        ]
        for later in left[1:]:
            self._cross_out(later)
        if not left:
            return None
        self._ours.add(left[0].number)
        return left[0]

    def _add(self, change: Change) -> None:
        self._next += 1
        if self.url != self._written_url:
            self._write({"host": self.url})
            self._written_url = self.url
        self._write({"time": time.time(), **asdict(change)})
        self._pending[change.number] = change
        self._ours.add(change.number)

    def undone(self, change: Change) -> None:
        """Write down that *change* was put back, or need not be."""
        with self._exclusive():
            self._cross_out(change)

    def _cross_out(self, change: Change) -> None:
        self._write({"time": time.time(), "undone": change.number})
        self._pending.pop(change.number, None)
        self._ours.discard(change.number)

    def pending(self) -> tuple[Change, ...]:
        """Return what is still to be put back, newest first, whoever changed it."""
        return tuple(sorted(self._pending.values(), key=lambda c: -c.number))

    def ours(self) -> tuple[Change, ...]:
        """Return what this process has to put back, newest first."""
        return tuple(change for change in self.pending() if change.number in self._ours)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        if self.path is None:
            yield
            return
        with filelock.FileLock(self.path.with_suffix(".lock"), thread_local=False):
            self._refresh()
            yield

    def _refresh(self) -> None:
        if self.path is None or not self.path.exists():
            return
        self._pending.clear()
        for entry in _entries(self.path):
            self._take(entry)

    def _take(self, entry: Mapping[str, object]) -> None:
        if "host" in entry:
            self._written_url = str(entry["host"])
        elif "undone" in entry:
            self._pending.pop(int(str(entry["undone"])), None)
        else:
            change = _change_of(entry)
            self._pending[change.number] = change
            self._next = max(self._next, change.number + 1)

    def _write(self, entry: Mapping[str, object]) -> None:
        if self.path is None:
            return
        with self.path.open("ab+") as stream:
            # A line that a crash cut short must not swallow this one.
            if stream.tell() and not _ends_with_newline(self.path):
                stream.write(b"\n")
            stream.write(json.dumps(entry).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())


def _change_of(entry: Mapping[str, object]) -> Change:
    number, group, boot = int(str(entry["number"])), entry.get("group", ""), entry.get("boot", "")
    if "path" in entry:
        return AttributeChange(
            number, str(entry["path"]), str(entry["text"]), str(group), str(boot)
        )
    return DriverChange(
        number, str(entry["bdf"]), str(entry["driver"]), str(entry["override"]), str(group),
        str(boot),
    )  # fmt: skip


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"


def _entries(path: Path) -> Iterator[dict[str, object]]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            # A line cut by a crash was never followed by a change: nothing to put back.
            continue
        if isinstance(entry, dict):
            yield entry


def journals() -> tuple[Path, ...]:
    """Return the journal files there are."""
    return tuple(sorted((paths.state_dir() / "journal").glob("*.jsonl")))
