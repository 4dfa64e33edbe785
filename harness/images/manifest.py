"""The record of an artifact: what it was made of and what every file of it must be."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.errors import ImageError


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or symbolic link of an artifact."""

    size: int
    """Bytes; 0 for a link."""
    sha256: str
    """Hex; of a link, the hash of its target."""
    kind: str
    """``file``, ``program`` (executable) or ``link``."""

    @classmethod
    def of(cls, path: Path) -> Entry:
        """Read the entry of *path*."""
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            return cls(0, hashlib.sha256(os.fsencode(os.readlink(path))).hexdigest(), "link")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(status.st_size, digest, "program" if status.st_mode & 0o111 else "file")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known about an artifact."""

    name: str
    key: str
    inputs: dict[str, str]
    packages: dict[str, str]
    """Version of each Debian package in it."""
    built: float
    """Seconds since the epoch."""
    seconds: float
    """How long the build took."""
    files: dict[str, Entry]

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(entry.size for entry in self.files.values())

    def as_json(self) -> dict[str, object]:
        """Return it for `json`."""
        return asdict(self)


def read_manifest(path: Path) -> Manifest:
    """Read ``manifest.json``.

    :raise ImageError: it is missing or damaged.
    """
    try:
        data = json.loads(path.read_text())
        data["files"] = {name: Entry(**entry) for name, entry in data["files"].items()}
        return Manifest(**data)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ImageError(
            "the record of an image cannot be read",
            seen=str(error),
            evidence=path,
            hint="trapline images rm removes what is damaged",
        ) from error


def list_tree(root: Path) -> dict[str, os.stat_result]:
    """Return the status of every file and link below *root* by relative name, sorted.

    Links are not followed; directories are not listed.
    """
    found: dict[str, os.stat_result] = {}
    waiting = [root]
    while waiting:
        for entry in os.scandir(waiting.pop()):
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            else:
                name = os.path.relpath(entry.path, root)
                found[name] = entry.stat(follow_symlinks=False)
    return dict(sorted(found.items()))


def write_json(path: Path, data: object) -> None:
    """Write *data* so that a reader sees all of it or none."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
    os.replace(new, path)
