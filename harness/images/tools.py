"""Running the programs that make images, and turning their complaints into our errors."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import process
from harness.errors import ImageError, MissingPackage

PACKAGE_OF = {
    "apt-get": "apt",
    "cpio": "cpio",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "gcc": "gcc",
    "mkfs.erofs": "erofs-utils",
    "xz": "xz-utils",
    "zstd": "zstd",
}
"""Debian package that holds each program we run."""

_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
_FULL = ("No space left on device", "Disk quota exceeded", "File too large", "enough free space")
_FULL_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def tool_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return our environment with English messages and the sbin directories in the path."""
    found = dict(os.environ)
    found["LC_ALL"] = "C"
    found["PATH"] = f"{found.get('PATH', '')}:{_SYSTEM_PATH}".lstrip(":")
    return found | dict(extra or {})


def missing_program(name: str) -> MissingPackage:
    """Return the error for a program that is not installed."""
    return MissingPackage(f"{name} is needed and not installed", [PACKAGE_OF.get(name, name)])


def run_tool(
    argv: Sequence[str | os.PathLike[str]],
    *,
    purpose: str,
    stdin: bytes | None = None,
    stdout: int | None = subprocess.PIPE,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a program to its end and return what it printed.

    :param purpose: what it is for, begins the error message.
    :param stdout: file descriptor that takes the output instead.
    :raise MissingPackage: the program is not installed.
    :raise ImageError: it failed; carries its last lines and, on a full disk, says so.
    """
    try:
        child = process.start(
            argv,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=tool_environment(env),
        )
    except FileNotFoundError as error:
        raise missing_program(os.fspath(argv[0])) from error
    try:
        out, complaint = child.communicate(stdin)
    except BaseException:
        process.kill(child)
        raise
    if child.returncode != 0:
        raise tool_failure(purpose, argv, child.returncode, complaint.decode(errors="replace"))
    return (out or b"").decode(errors="replace")


def tool_failure(
    purpose: str, argv: Sequence[str | os.PathLike[str]], status: int, complaint: str
) -> ImageError:
    """Return the error for a program that ended with *status* after saying *complaint*."""
    name = Path(os.fspath(argv[0])).name
    full = says_disk_full(complaint)
    return ImageError(
        f"{purpose}: {'the disk is full' if full else f'{name} ended with status {status}'}",
        seen="\n".join(complaint.strip().splitlines()[-12:]),
        hint=DISK_FULL_HINT if full else "",
    )


DISK_FULL_HINT = (
    "free some space, remove old images (trapline images rm), or set TRAPLINE_CACHE to a "
    "larger file system"
)


def says_disk_full(text: str) -> bool:
    """Say whether a program's complaint is about a full disk or quota."""
    return any(sign in text for sign in _FULL)


def is_disk_full(error: OSError) -> bool:
    """Say whether *error* means a full disk, quota or file size limit."""
    return error.errno in _FULL_NUMBERS
