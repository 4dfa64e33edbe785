"""Debian packages: chosen by the resolver, downloaded, unpacked."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness import process
from harness.errors import ImageError
from harness.images.tools import DISK_FULL_HINT, run_tool, says_disk_full, tool_environment
from harness.step import step

MACHINE_ARCHITECTURE = "amd64"
"""What this machine runs."""


@dataclass(frozen=True, slots=True)
class Selected:
    """A package that the resolver chose."""

    name: str
    version: str
    architecture: str
    file_name: str
    """Name in the archive directory (colons of the version escaped)."""
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Package:
    """A downloaded and verified package file."""

    name: str
    version: str
    architecture: str
    path: Path
    sha256: str


def unpack(packages: Sequence[Package], into: Path) -> None:
    """Unpack package files into one tree with a merged /usr; no script of theirs runs.

    Files get the owner who runs this; image makers set root.

    :raise ImageError: a package is damaged, or the disk is full.
    """
    into.mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (into / "usr" / name).mkdir(parents=True, exist_ok=True)
        if not (into / name).is_symlink():
            (into / name).symlink_to(f"usr/{name}")
    with step("unpack %d packages", len(packages)), ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda one: _unpack_one(one, into), packages):
            pass


def _unpack_one(package: Package, into: Path) -> None:
    # tar keeps the symlinks of the merged /usr only when told to (dpkg-deb -x would replace
    # /lib by the package's own directory of that name).
    reader, writer = os.pipe()
    try:
        unpacking = process.start(
            ["tar", "-xp", "--keep-directory-symlink", "--no-same-owner", "-C", into],
            stdin=reader,
            stderr=subprocess.PIPE,
            env=tool_environment(),
        )
    finally:
        os.close(reader)
    failure: ImageError | None = None
    try:
        run_tool(
            ["dpkg-deb", "--fsys-tarfile", package.path],
            purpose=f"unpack {package.name} {package.version}",
            stdout=writer,
        )
    except ImageError as error:
        failure = error
    finally:
        os.close(writer)
    _, complaint = unpacking.communicate()
    said = complaint.decode(errors="replace")
    if unpacking.returncode != 0 and says_disk_full(said):
        raise ImageError(
            f"unpack {package.name}: the disk is full", seen=said[-500:], hint=DISK_FULL_HINT
        )
    if failure is not None:
        raise failure
    if unpacking.returncode != 0:
        raise ImageError(f"unpack {package.name} {package.version}: tar failed", seen=said[-500:])
