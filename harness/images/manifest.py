"""The record of an artifact: what it was made of and what every file of it must be."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.errors import ImageError

_PIECE = 1 << 20
_ZEROS = memoryview(bytes(_PIECE))


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
        return cls(
            status.st_size, hash_sparse(path), "program" if status.st_mode & 0o111 else "file"
        )


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


def hash_sparse(path: Path) -> str:
    """Return the SHA-256 of a file, hex; what was never written to it is not read.

    Reading a hole makes the kernel clear a page for each page of it: of the memory of a saved
    machine, most is holes, and the hash of zeros is four times as fast as reading them.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        while at < size:
            try:
                data = os.lseek(file.fileno(), at, os.SEEK_DATA)
                end = os.lseek(file.fileno(), data, os.SEEK_HOLE)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                data = end = size  # nothing but a hole is left
            for start in range(at, data, _PIECE):
                digest.update(_ZEROS[: min(_PIECE, data - start)])
            for start in range(data, end, _PIECE):
                digest.update(os.pread(file.fileno(), min(_PIECE, end - start), start))
            at = end
    return digest.hexdigest()


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
