"""Locks on IOMMU groups and settings, so that two runs never take devices of one group.

The lock files lie in the state directory of the computer that drives the host, one per host
and group, or file that is changed; the operating system drops a lock when its holder ends,
however it ends. So a lock that can be taken also tells `harness.host.restore` that whoever made
the change is gone. Runs started on different computers do not see each other's locks.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import filelock

from harness import paths
from harness.errors import DeviceBusy


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock."""

    pid: int
    run: str
    """Where its evidence is."""

    def __str__(self) -> str:
        return f"process {self.pid}, evidence in {self.run}"


class HostLocks:
    """The locks that this process holds on groups and files of one host, by their names.

    :param directory: where the lock files of the host are.
    :param run: told to others that want the same.
    """

    def __init__(self, directory: Path, *, run: str) -> None:
        self._directory = directory
        self._run = run
        self._held: dict[str, filelock.BaseFileLock] = {}

    @classmethod
    def of_host(cls, name: str, *, run: str) -> HostLocks:
        """Return the locks of the host called *name* (`harness.host.physical.canonical`)."""
        return cls(paths.state_dir() / "locks" / host_slug(name), run=run)

    @property
    def held(self) -> tuple[str, ...]:
        """Names of what we hold."""
        return tuple(self._held)

    def take(self, name: str, *, what: str) -> None:
        """Hold the lock called *name* from now on; holding it already is fine.

        :param what: the function or file it is for, for the message.
        :raise DeviceBusy: another run holds it; the message says which.
        """
        if name in self._held:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{name}.lock"
        lock = filelock.FileLock(path, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            holder = self.holder(name)
            raise DeviceBusy(
                f"{what} ({name}) is used by another run and is not taken",
                seen=str(holder) if holder else "its holder has not said who it is",
                evidence=path,
                hint="wait for that run; on hosts that are not thrown away, runs do not share"
                " devices, so leave out -n",
            ) from error
        self._held[name] = lock
        self._owner(name).write_text(json.dumps({"pid": os.getpid(), "run": self._run}))

    def holder(self, name: str) -> Holder | None:
        """Return who said last that it holds *name*, None if nobody did."""
        try:
            said = json.loads(self._owner(name).read_text())
            return Holder(int(said["pid"]), str(said["run"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def let_go(self, name: str) -> None:
        """Let others have *name*."""
        with contextlib.suppress(OSError):
            self._owner(name).unlink(missing_ok=True)
        self._held.pop(name).release()

    def release(self) -> None:
        """Let go of all."""
        for name in self.held:
            self.let_go(name)

    def _owner(self, name: str) -> Path:
        return self._directory / f"{name}.owner"


def host_slug(name: str) -> str:
    """Return the file name that stands for the host *name*."""
    return re.sub(r"[^A-Za-z0-9.@-]+", "_", name)
