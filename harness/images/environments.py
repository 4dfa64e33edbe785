"""The Python environments that ``./trapline`` makes in the cache, and which may go.

::

    venv/<key>-<version>/complete   empty; its time is the last use; held (flock) while used
    venv/<key>-<version>/size       bytes on the disk, written when first asked for
    venv/lock                       held while one is made or removed

The launcher makes one per checkout, ``TRAPLINE_PYTHON`` and content of ``pyproject.toml``, and
holds it shared while a command runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from harness import paths
from harness.errors import ImageError
from harness.images.cache import remove_tree

DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Environment:
    """One of them."""

    name: str
    path: Path
    checkout: Path | None
    """Whose; None if it was never finished."""
    size: int
    """Bytes on the disk."""
    used: float
    """When a command last began in it, seconds since the epoch; 0 if it never was complete."""


@dataclass(frozen=True, slots=True)
class Judged:
    """An environment, and whether it goes."""

    environment: Environment
    goes: bool
    why: str


def environments() -> list[Environment]:
    """Return all of them, longest unused first."""
    found = [_read(path) for path in _root().glob("*-*") if path.is_dir()]
    return sorted(found, key=lambda one: (one.used, one.name))


def prune(unused: float, *, dry_run: bool = False) -> Iterator[Judged]:
    """Remove what nobody will use again; yields every environment, when it was dealt with.

    These go: what was broken off, what has no checkout any more, and what no command began in
    for *unused* days. These stay, whatever their age: the one that we run in, and what
    a process uses.

    :param dry_run: remove nothing.
    :raise ImageError: an environment is being made, or they belong to somebody else.
    """
    if not _root().is_dir():
        return
    with _making_held():
        busy = _used_paths()
        for one in environments():
            yield _deal_with(one, unused * DAY, busy, dry_run=dry_run)


def _root() -> Path:
    return paths.cache_dir().absolute() / "venv"


def _deal_with(one: Environment, unused: float, busy: str, *, dry_run: bool) -> Judged:
    if one.path.resolve() == Path(sys.prefix).resolve():
        return Judged(one, False, "this command runs in it")
    why = _why_it_goes(one, unused)
    if not why:
        return Judged(one, False, "may be used again")
    # A launcher of an older checkout holds nothing, but what it started is seen in /proc.
    if f"{one.path}/" in busy or f"{one.path.resolve()}/" in busy:
        return Judged(one, False, "a process uses it")
    with contextlib.ExitStack() as stack:
        complete = one.path / "complete"
        if one.used:
            held = stack.enter_context(complete.open("rb"))
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Judged(one, False, "a process uses it")
        if not dry_run:
            complete.unlink(missing_ok=True)  # first: whoever starts now makes another one
            remove_tree(one.path)
    return Judged(one, True, why)


def _why_it_goes(one: Environment, unused: float) -> str:
    if not one.used:
        return "it was never finished"
    if one.checkout is not None and _is_gone(one.checkout):
        return "its checkout is gone"
    idle = time.time() - one.used
    return f"unused for {idle / DAY:.0f} days" if idle >= unused else ""


def _is_gone(checkout: Path) -> bool:
    """Say whether nothing can be started there; what we may not look at is not gone."""
    try:
        (checkout / "pyproject.toml").stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


@contextlib.contextmanager
def _making_held() -> Iterator[None]:
    path = _root() / "lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ImageError(
            f"cannot write in {path.parent}",
            seen=error.strerror or str(error),
            hint="name a cache of your own with TRAPLINE_CACHE, or ask whose this is",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise ImageError(
            "another trapline is making a Python environment just now",
            evidence=path.parent / "setup.log",
            hint="try again when it is done",
        ) from error
    try:
        yield
    finally:
        os.close(lock)


def _used_paths() -> str:
    """Return command lines and mapped files of every process that we may look at."""
    said = []
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "maps"):
            with contextlib.suppress(OSError):
                said.append((process / name).read_bytes().decode(errors="replace"))
    return "\n".join(said)


def _read(path: Path) -> Environment:
    try:
        used = (path / "complete").stat().st_mtime
    except OSError:
        used = 0.0
    return Environment(path.name, path, _checkout(path), _size(path, keep=used > 0), used)


def _checkout(path: Path) -> Path | None:
    """Return what pip says was installed in editable form (PEP 610)."""
    for record in path.glob("lib/python*/site-packages/trapline-*.dist-info/direct_url.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return Path(unquote(urlsplit(json.loads(record.read_text())["url"]).path))
    return None


def _size(path: Path, *, keep: bool) -> int:
    """Return its bytes; thousands of files are counted once only."""
    kept = path / "size"
    with contextlib.suppress(OSError, ValueError):
        return int(kept.read_text())
    size = 0
    for directory, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(directory, name)).st_blocks * 512
    if keep:
        with contextlib.suppress(OSError):
            kept.write_text(f"{size}\n")
    return size
