"""Directory trees to file system images, the same bytes from the same tree every time."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from pathlib import Path

from harness.images.manifest import list_tree
from harness.images.tools import run_tool

EPOCH = 0
"""Modification time of every file in an image."""

_NAMESPACE = uuid.UUID("a3a5f0de-6c6e-5a0c-9a0b-7472616c6e65")


def make_erofs(tree: Path, image: Path) -> None:
    """Make *image*, an uncompressed EROFS with the content of *tree*, owned by root.

    Uncompressed: an emulated CPU would spend more on decompression than it saves in reads.

    :raise ImageError: mkfs.erofs failed, or the disk is full.
    """
    run_tool(
        [
            "mkfs.erofs", "--quiet", "-x-1", f"-T{EPOCH}", "--all-root",
            f"-U{uuid.uuid5(_NAMESPACE, image.name)}", image, tree,
        ],
        purpose=f"make {image.name}",
    )  # fmt: skip


def make_cpio(tree: Path, image: Path) -> None:
    """Make *image*, a newc archive (initramfs) of *tree*, sorted and owned by root.

    Not compressed, for the same reason.

    :raise ImageError: cpio failed, or the disk is full.
    """
    directories = [os.path.relpath(where, tree) for where, _, _ in os.walk(tree)]
    names = sorted({*directories, *list_tree(tree)} - {"."})
    for name in names:
        os.utime(tree / name, (EPOCH, EPOCH), follow_symlinks=False)
    with image.open("wb") as file:
        run_tool(
            ["cpio", "-o", "-H", "newc", "--reproducible", "--owner=+0:+0", "--quiet", "--null"],
            purpose=f"make {image.name}",
            stdin=b"".join(os.fsencode(name) + b"\0" for name in names),
            stdout=file.fileno(),
            cwd=tree,
        )


def remove_matching(tree: Path, patterns: Iterable[str]) -> None:
    """Remove everything below *tree* that one of the glob *patterns* names."""
    for pattern in patterns:
        for path in sorted(tree.glob(pattern), reverse=True):
            if path.is_dir() and not path.is_symlink():
                _remove_directory(path)
            else:
                path.unlink(missing_ok=True)


def _remove_directory(path: Path) -> None:
    for directory, _, names in os.walk(path, topdown=False):
        for name in names:
            Path(directory, name).unlink()
        for entry in os.scandir(directory):
            (os.unlink if entry.is_symlink() else os.rmdir)(entry.path)
    path.rmdir()
