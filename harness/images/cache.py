"""The content-addressed store of images.

::

    images/<name>/<key>/files/…         what was built, read-only
    images/<name>/<key>/manifest.json   what it was made of, size and hash of every file
    images/<name>/<key>/stamp.json      sizes and times seen at the last complete check
    images/index/<recipe>               the key that a recipe had when it was last resolved
    images/tmp, images/locks, images/damaged

The key is the hash of everything that goes into an artifact, so what is there is right or
damaged, never old. An artifact appears by one rename and is never changed; removing the
whole directory loses nothing but time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness import paths
from harness.errors import ImageError
from harness.images.locks import LONGEST_WAIT, hold, try_hold
from harness.images.manifest import Entry, Manifest, list_tree, read_manifest, write_json
from harness.images.tools import DISK_FULL_HINT, is_disk_full
from harness.step import step

log = logging.getLogger(__name__)

KEY_LENGTH = 20
"""Hex digits of a key: 80 bits, short enough for a directory name."""


def key_of(*inputs: str | bytes) -> str:
    """Return the key for *inputs*; their order and their borders count."""
    digest = hashlib.sha256()
    for one in inputs:
        data = one.encode() if isinstance(one, str) else one
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:KEY_LENGTH]


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_tree(root: Path) -> str:
    """Return a hash over names, modes, links and contents of everything below *root*."""
    digest = hashlib.sha256()
    for name, status in list_tree(root).items():
        path = root / name
        what = os.readlink(path) if stat.S_ISLNK(status.st_mode) else hash_file(path)
        digest.update(f"{name}\0{status.st_mode & 0o111:o}\0{what}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Artifact:
    """Something built: a read-only directory and the record of its making."""

    name: str
    key: str
    dir: Path
    """The files; nothing in it may be changed."""

    @property
    def manifest_path(self) -> Path:
        """Return the record: inputs, package versions, hashes, when and how long."""
        return self.dir.parent / "manifest.json"

    def manifest(self) -> Manifest:
        """Read the record.

        :raise ImageError: it is not there or not readable.
        """
        return read_manifest(self.manifest_path)


class Store:
    """Artifacts below one directory, shared by all processes of this user.

    :param longest_wait: seconds to wait for another process that builds the same.
    """

    def __init__(self, root: Path | None = None, *, longest_wait: float = LONGEST_WAIT) -> None:
        self.root = root if root is not None else paths.cache_dir() / "images"
        self._longest_wait = longest_wait

    def obtain(
        self,
        key: str,
        build: Callable[[Path], None],
        name: str,
        *,
        inputs: Mapping[str, str] | None = None,
        packages: Mapping[str, str] | None = None,
    ) -> Artifact:
        """Return the artifact *key*, built by *build* if it is not there or damaged.

        *build* gets an empty directory to fill. Of several processes that want the same
        artifact one builds, the others wait and say for whom.

        :param inputs: what it is made of, for people; *key* must cover all of it.
        :param packages: versions of the Debian packages in it, for people.
        :raise ImageError: the build failed or the disk is full; nothing is left behind.
        """
        found = self.find(name, key)
        if found is not None:
            return found
        with hold(self._lock(name, key), f"build {name}", timeout=self._longest_wait):
            found = self.find(name, key)  # another process may have built it meanwhile
            if found is not None:
                return found
            self._sweep(f"{name}-{key}")
            return self._build(key, build, name, dict(inputs or {}), dict(packages or {}))

    def find(self, name: str, key: str) -> Artifact | None:
        """Return the artifact if it is there and whole; a damaged one is moved away.

        Sizes and times are compared with those of the last complete check; if they differ
        every hash is computed again.
        """
        artifact = self._artifact(name, key)
        if not artifact.dir.parent.is_dir():
            return None
        problems = self.check(artifact)
        if not problems:
            return artifact
        with step("%s %s is damaged, it is made again: %s", name, key, problems[0]):
            said = "; ".join([*problems[:5], *(["…"] if len(problems) > 5 else [])])
            log.warning("%s %s is damaged and is made again: %s", name, key, said)
            with contextlib.suppress(FileNotFoundError):
                self._move_away(artifact)
        return None

    def check(self, artifact: Artifact, *, full: bool = False) -> list[str]:
        """Return what is wrong with an artifact, empty if it is whole.

        :param full: compute every hash, whatever sizes and times say.
        """
        try:
            manifest = artifact.manifest()
            present = list_tree(artifact.dir)
        except (ImageError, OSError) as error:
            return [str(error).splitlines()[0]]
        if (manifest.name, manifest.key) != (artifact.name, artifact.key):
            return [f"it is {manifest.name} {manifest.key}"]
        recorded = manifest.files
        seen = _stamp_of(present)
        stamp = artifact.dir.parent / "stamp.json"
        if not full and _read_json(stamp) == seen and seen.keys() == recorded.keys():
            return []
        problems = [f"{name} is missing" for name in recorded.keys() - present.keys()]
        problems += [f"{name} does not belong to it" for name in present.keys() - recorded.keys()]
        for name in sorted(recorded.keys() & present.keys()):
            if Entry.of(artifact.dir / name) != recorded[name]:
                problems.append(f"{name} has changed")
        with contextlib.suppress(OSError):  # a cache that is only readable is fine
            if problems:
                stamp.unlink()  # what was found now is found again, by who looks less closely
            else:
                write_json(stamp, seen)
        return sorted(problems)

    def entries(self) -> list[Artifact]:
        """Return every artifact, by name, then newest first."""
        found = [
            self._artifact(path.parent.parent.name, path.parent.name)
            for path in self.root.glob("*/*/manifest.json")
            if path.parent.parent.name not in ("tmp", "damaged")
        ]
        times: dict[Artifact, float] = {}
        for one in found:
            with contextlib.suppress(FileNotFoundError):  # another process removed it just now
                times[one] = one.manifest_path.stat().st_mtime
        return sorted(times, key=lambda one: (one.name, -times[one]))

    def remove(self, artifact: Artifact) -> None:
        """Remove an artifact; what is building it or waits for it builds it again."""
        with hold(self._lock(artifact.name, artifact.key), f"remove {artifact.name}"):
            # Named as `_sweep` wants it: the lock says that somebody is at work there.
            doomed = self._work_directory(f"{artifact.name}-{artifact.key}")
            with contextlib.suppress(FileNotFoundError):
                artifact.dir.parent.rename(doomed / "removed")
            remove_tree(doomed)

    def recall(self, recipe: str) -> str | None:
        """Return the key that *recipe* (a hash) had when it was last resolved."""
        try:
            return (self.root / "index" / recipe).read_text().strip() or None
        except OSError:
            return None

    def remember(self, recipe: str, key: str) -> None:
        """Keep *key* for *recipe*, so that the next start needs neither apt nor network."""
        target = self._directory("index") / recipe
        if self.recall(recipe) == key:
            return
        with tempfile.NamedTemporaryFile("w", dir=target.parent, delete=False) as file:
            file.write(key + "\n")
        os.replace(file.name, target)

    # inside

    def _artifact(self, name: str, key: str) -> Artifact:
        return Artifact(name, key, self.root / name / key / "files")

    def _directory(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _lock(self, name: str, key: str) -> Path:
        return self._directory("locks") / f"{name}-{key}.lock"

    def _build(
        self,
        key: str,
        build: Callable[[Path], None],
        name: str,
        inputs: dict[str, str],
        packages: dict[str, str],
    ) -> Artifact:
        artifact = self._artifact(name, key)
        work = self._work_directory(f"{name}-{key}")
        try:
            with step("build %s", name), _disk_full_as_image_error(name):
                began = time.monotonic()
                (work / "files").mkdir()
                build(work / "files")
                manifest = Manifest(
                    name=name,
                    key=key,
                    inputs=inputs,
                    packages=packages,
                    built=time.time(),
                    seconds=round(time.monotonic() - began, 2),
                    files={n: Entry.of(work / "files" / n) for n in list_tree(work / "files")},
                )
                write_json(work / "manifest.json", manifest.as_json())
                _make_read_only(work / "files")
                write_json(work / "stamp.json", _stamp_of(list_tree(work / "files")))
                _flush(work)
                artifact.dir.parent.parent.mkdir(parents=True, exist_ok=True)
                work.chmod(0o755)
                work.rename(artifact.dir.parent)
                _flush_directory(artifact.dir.parent.parent)
        finally:
            remove_tree(work)
        return artifact

    def _work_directory(self, prefix: str) -> Path:
        with _disk_full_as_image_error(prefix):
            return Path(tempfile.mkdtemp(dir=self._directory("tmp"), prefix=prefix + "."))

    def _move_away(self, artifact: Artifact) -> None:
        place = self._directory("damaged") / f"{artifact.name}-{artifact.key}"
        remove_tree(place)
        artifact.dir.parent.rename(place)

    def _sweep(self, ours: str) -> None:
        """Remove what killed builders left; the lock of each artifact says if one lives."""
        for path in self._directory("tmp").iterdir():
            subject = path.name.split(".")[0]
            if subject == ours:
                remove_tree(path)
                continue
            with try_hold(self.root / "locks" / f"{subject}.lock") as dead:
                if dead:
                    remove_tree(path)


def remove_tree(path: Path) -> None:
    """Remove a directory tree, read-only or not, if it is there; others may be removing it too."""
    if not path.is_dir():
        return
    for directory, _, _ in os.walk(path):
        with contextlib.suppress(FileNotFoundError):
            os.chmod(directory, 0o700)

    def fail(_: object, __: str, caught: tuple[object, BaseException, object]) -> None:
        if not isinstance(caught[1], FileNotFoundError):
            raise caught[1]

    shutil.rmtree(path, onerror=fail)


@contextlib.contextmanager
def _disk_full_as_image_error(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise ImageError(
            f"build {name}: the disk is full", seen=str(error), hint=DISK_FULL_HINT
        ) from error


def _make_read_only(root: Path) -> None:
    for directory, _, names in os.walk(root, topdown=False):
        for name in names:
            path = Path(directory, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o555)
        Path(directory).chmod(0o555)


def _flush(root: Path) -> None:
    """Bring everything below *root* to the disk, so that the rename never outruns the data."""
    for directory, _, names in os.walk(root, topdown=False):
        for name in names:
            path = Path(directory, name)
            if path.is_symlink():
                continue
            with path.open("rb") as file:
                os.fsync(file.fileno())
        _flush_directory(Path(directory))


def _flush_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stamp_of(tree: Mapping[str, os.stat_result]) -> dict[str, list[int]]:
    """Return what changes with a file: size, and both times, of which nobody can set the last."""
    return {name: [s.st_size, s.st_mtime_ns, s.st_ctime_ns] for name, s in tree.items()}


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
