"""Where trapline keeps things: cache, state, run-time files, results.

Nothing is read at import; every function looks at the environment when called.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path


def cache_dir() -> Path:
    """Return the cache (``$TRAPLINE_CACHE`` or ``$XDG_CACHE_HOME/trapline``).

    Removing it loses nothing but time.
    """
    return _directory("TRAPLINE_CACHE", "XDG_CACHE_HOME", ".cache")


def state_dir() -> Path:
    """Return the directory of host journals (``$TRAPLINE_STATE`` or ``$XDG_STATE_HOME/trapline``).

    Removing it loses the knowledge of what to put back on physical hosts.
    """
    return _directory("TRAPLINE_STATE", "XDG_STATE_HOME", ".local/state")


_PREFIX = "trapline-"
_OWNER = ".owner"
_owned: dict[Path, int] = {}


def runtime_dir() -> Path:
    """Make and return a new private directory for sockets, with a short path.

    Unix socket paths end at 107 bytes, which rules out the results directory. The caller
    removes it with `remove_runtime_dir`. What a killed process left is removed here: its owner
    holds a lock for as long as it lives (a process id would mean nothing to a container that
    shares ``/tmp``).
    """
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    if not os.access(base, os.W_OK):
        base = tempfile.gettempdir()
    sweep_runtime_dirs(Path(base))
    while True:
        made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        with contextlib.suppress(FileNotFoundError):  # swept before the lock was taken
            lock = os.open(made / _OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock).st_nlink:
                _owned[made] = lock
                return made
            os.close(lock)


def remove_runtime_dir(path: Path) -> None:
    """Remove what `runtime_dir` made; callable twice."""
    shutil.rmtree(path, ignore_errors=True)
    lock = _owned.pop(path, None)
    if lock is not None:
        os.close(lock)


def sweep_runtime_dirs(base: Path) -> list[Path]:
    """Remove the run-time directories under *base* whose owner is dead; return them.

    Only what carries our lock file and belongs to this user is looked at.
    """
    swept = []
    for mark in base.glob(f"{_PREFIX}*/{_OWNER}"):
        with contextlib.suppress(OSError):  # another user's, or another sweeper was faster
            lock = os.open(mark, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if os.fstat(lock).st_uid != os.geteuid():
                    continue
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(mark.parent, ignore_errors=True)
                swept.append(mark.parent)
            finally:
                os.close(lock)
    return swept


def recipes_dir() -> Path:
    """Return the image recipes: package data when installed, ``images/`` in a checkout."""
    here = Path(__file__).resolve().parent
    packaged = here / "recipes"
    return packaged if packaged.is_dir() else here.parent / "images"


def profiles_dir() -> Path:
    """Return the device profiles: package data when installed, ``profiles/`` in a checkout."""
    here = Path(__file__).resolve().parent
    packaged = here / "profiles"
    return packaged if packaged.is_dir() else here.parent / "profiles"


def _directory(own: str, xdg: str, fallback: str) -> Path:
    if os.environ.get(own):
        return Path(os.environ[own])
    base = os.environ.get(xdg)
    return (Path(base) if base else Path.home() / fallback) / "trapline"
