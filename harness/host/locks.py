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


class GroupLocks:
    """The locks that this process holds on groups of one host.

    :param directory: where the lock files of the host are.
    :param run: told to others that want the same group.
    """

    def __init__(self, directory: Path, *, run: str) -> None:
        self._directory = directory
        self._run = run
        self._held: dict[str, filelock.BaseFileLock] = {}

    @classmethod
    def of_host(cls, name: str, *, run: str) -> GroupLocks:
        """Return the locks of the host called *name* (`harness.host.physical.canonical`)."""
        return cls(paths.state_dir() / "locks" / host_slug(name), run=run)

    @property
    def held(self) -> tuple[str, ...]:
        """Names of the groups we hold."""
        return tuple(self._held)

    def take(self, group: str, *, what: str) -> None:
        """Hold the lock of *group* from now on; holding it already is fine.

        :param what: the function it is for, for the message.
        :raise DeviceBusy: another run holds it; the message says which.
        """
        if group in self._held:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{group}.lock"
        lock = filelock.FileLock(path, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            holder = self.holder(group)
            raise DeviceBusy(
                f"{what} ({group}) is used by another run and is not taken",
                seen=str(holder) if holder else "its holder has not said who it is",
                evidence=path,
                hint="wait for that run; on hosts that are not thrown away, runs do not share"
                " devices, so leave out -n",
            ) from error
        self._held[group] = lock
        self._owner(group).write_text(json.dumps({"pid": os.getpid(), "run": self._run}))

    def holder(self, group: str) -> Holder | None:
        """Return who said last that it holds *group*, None if nobody did."""
        try:
            said = json.loads(self._owner(group).read_text())
            return Holder(int(said["pid"]), str(said["run"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def release(self) -> None:
        """Let go of all."""
        for group, lock in self._held.items():
            with contextlib.suppress(OSError):
                self._owner(group).unlink(missing_ok=True)
            lock.release()
        self._held.clear()

    def _owner(self, group: str) -> Path:
        return self._directory / f"{group}.owner"


def host_slug(name: str) -> str:
    """Return the file name that stands for the host *name*."""
    return re.sub(r"[^A-Za-z0-9.@-]+", "_", name)
