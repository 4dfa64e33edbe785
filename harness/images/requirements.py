"""Which Debian packages the machine must have, read from ``images/packages.txt``."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness import paths
from harness.errors import MissingPackage
from harness.images.tools import tool_environment


def required_packages() -> list[tuple[str, str]]:
    """Return what must be there: a program's name or an absolute path, and its package."""
    lines = (paths.recipes_dir() / "packages.txt").read_text().splitlines()
    words = (line.split("#")[0].split() for line in lines)
    return [(pair[0], pair[1]) for pair in words if len(pair) == 2]


def missing_packages() -> list[str]:
    """Return the packages whose program or file is not there, in the order of the list."""
    path = tool_environment()["PATH"]

    def have(what: str) -> bool:
        return Path(what).exists() if what.startswith("/") else bool(shutil.which(what, path=path))

    return list(dict.fromkeys(p for what, p in required_packages() if not have(what)))


def require_packages() -> None:
    """Raise `MissingPackage` for everything that is not there, at once."""
    missing = missing_packages()
    if missing:
        raise MissingPackage("programs that make images are not installed", missing)
