"""Where trapline keeps things: cache, state, run-time files, results.

Nothing is read at import; every function looks at the environment when called.
"""

from __future__ import annotations

import os
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


def runtime_dir() -> Path:
    """Make and return a new private directory for sockets, with a short path.

    Unix socket paths end at 107 bytes, which rules out the results directory. The caller
    removes it.
    """
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    if not os.access(base, os.W_OK):
        base = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="trapline-", dir=base))


def recipes_dir() -> Path:
    """Return the image recipes: package data when installed, ``images/`` in a checkout."""
    here = Path(__file__).resolve().parent
    packaged = here / "recipes"
    return packaged if packaged.is_dir() else here.parent / "images"


def _directory(own: str, xdg: str, fallback: str) -> Path:
    if os.environ.get(own):
        return Path(os.environ[own])
    base = os.environ.get(xdg)
    return (Path(base) if base else Path.home() / fallback) / "trapline"
