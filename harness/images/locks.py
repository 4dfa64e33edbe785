"""Locks between processes that say who holds them."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import filelock

from harness.errors import ImageError
from harness.step import step

log = logging.getLogger(__name__)

LONGEST_WAIT = 3600.0
"""Seconds to wait for another builder; a kernel of a slow mirror takes minutes."""


@contextlib.contextmanager
def hold(path: Path, purpose: str, *, timeout: float = LONGEST_WAIT) -> Iterator[None]:
    """Hold the lock file *path*; waiting for another process is a step that names it.

    The kernel drops the lock when its holder ends, however it ends.

    :raise ImageError: still held by another after *timeout* seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    owner = path.with_name(path.name + ".owner")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        _wait(lock, owner, purpose, timeout)
    try:
        with contextlib.suppress(OSError):
            owner.write_text(f"process {os.getpid()}: {purpose}\n")
        yield
    finally:
        with contextlib.suppress(OSError):
            owner.unlink(missing_ok=True)
        lock.release()


@contextlib.contextmanager
def try_hold(path: Path) -> Iterator[bool]:
    """Hold *path* if nobody does; yields whether we do."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _wait(lock: filelock.FileLock, owner: Path, purpose: str, timeout: float) -> None:
    holder = _read(owner)
    log.info("%s: waiting for %s", purpose, holder)
    try:
        with step("wait for %s", holder):
            lock.acquire(timeout=timeout, poll_interval=0.05)
    except filelock.Timeout as error:
        raise ImageError(
            f"{purpose}: the lock was not free after {timeout:g} s",
            seen=f"held by {_read(owner)}",
            evidence=lock.lock_file,
            hint="wait for that process, or end it if it is stuck",
        ) from error


def _read(owner: Path) -> str:
    try:
        return owner.read_text().strip() or "another process"
    except OSError:
        return "another process"
