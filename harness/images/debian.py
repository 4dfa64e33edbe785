"""Packages of any Debian suite: resolved and downloaded by apt in a private root.

Nothing is installed and nothing of a package is executed. apt works on directories below the
cache (lists, an empty dpkg status, its own settings), so no root is needed and the machine's
own package state is neither read nor changed. Proxies of the machine's apt are honoured.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from harness import paths
from harness.errors import ImageError
from harness.images.apt import Apt, Outdated, Progress, assumed_status, write_if_changed
from harness.images.locks import hold
from harness.images.mirror import Mirror, machine_mirror
from harness.images.packages import MACHINE_ARCHITECTURE, Package, Selected, unpack
from harness.images.tools import DISK_FULL_HINT, is_disk_full, says_disk_full
from harness.step import step

__all__ = ["DebianSuite", "Package", "Progress", "Selected", "machine_mirror", "unpack"]

log = logging.getLogger(__name__)

LISTS_ARE_OLD = 24 * 3600.0
"""Age in seconds at which package lists are fetched again."""

ALONE = "status-alone"
"""dpkg status for packages that are taken without what they depend on."""


class DebianSuite:
    """One suite of a Debian archive, with a private apt.

    :param suite: ``trixie``, ``sid``, ``trixie-backports``; of a backports suite packages are
        preferred, its base suite is there for everything it lacks.
    :param assume: package names to take as installed, their dependencies with them; for
        dependencies that only maintainer scripts need.
    :param architecture: of the packages, in Debian's words; those for every machine come along.
    """

    def __init__(
        self,
        suite: str,
        mirror: Mirror | None = None,
        *,
        assume: Iterable[str] = (),
        cache: Path | None = None,
        progress: Progress | None = None,
        architecture: str = MACHINE_ARCHITECTURE,
    ) -> None:
        self.suite = suite
        self.mirror = mirror or machine_mirror()
        home = (cache or paths.cache_dir()) / "apt"
        # Lists belong to a mirror; archives are told apart by their verified hashes.
        origin = hashlib.sha256(self.mirror.uri.encode()).hexdigest()[:8]
        foreign = "" if architecture == MACHINE_ARCHITECTURE else f"{architecture}-"
        self.root = home / f"{suite}-{foreign}{origin}"
        self.archives = home / "archives"
        self._lock = home / "lock"
        self._apt = Apt(
            self.root, self.archives, suite, self.mirror, tuple(sorted(assume)), progress,
            architecture,
        )  # fmt: skip

    def fetch(self, packages: Sequence[str], *, alone: Sequence[str] = ()) -> list[Package]:
        """Download *packages* and all they depend on (recommended ones are left out).

        Downloads that were cut short go on where they ended. Files are checked against the
        signed list; apt looked at the signature.

        :param alone: packages to add without what they depend on.

        :raise ImageError: no network and nothing cached, no such package, full disk.
        """
        with self._locked(f"fetch packages of {self.suite}"):
            self._refresh()
            selected = self._resolve(packages, alone)
            try:
                self._download(packages, alone, selected)
            except Outdated:
                # The mirror moved on since the lists were fetched.
                self._refresh(force=True)
                selected = self._resolve(packages, alone)
                self._download(packages, alone, selected)
            return [self._verified(one) for one in selected]

    def resolve(self, packages: Sequence[str], *, alone: Sequence[str] = ()) -> list[Selected]:
        """Return what `fetch` would download, sorted by name."""
        with self._locked(f"resolve packages of {self.suite}"):
            self._refresh()
            return self._resolve(packages, alone)

    @contextlib.contextmanager
    def _locked(self, purpose: str) -> Iterator[None]:
        try:
            with hold(self._lock, purpose):
                yield
        except OSError as error:
            if not is_disk_full(error):
                raise
            raise ImageError(
                f"{purpose}: the disk is full", seen=str(error), hint=DISK_FULL_HINT
            ) from error

    def _refresh(self, *, force: bool = False) -> None:
        """Fetch the package lists when they are old; old ones do when there is no network."""
        self._apt.write_settings()
        stamp = self.root / "updated"
        try:
            age = time.time() - stamp.stat().st_mtime
        except FileNotFoundError:
            age = float("inf")
        unchanged = stamp.exists() and stamp.read_text() == self._apt.source_list()
        if unchanged and 0 <= age < LISTS_ARE_OLD and not force:
            return
        with step("fetch package lists of %s", self.suite):
            try:
                self._apt.run(["update"], f"fetch package lists of {self.suite}")
            except ImageError as error:
                if not unchanged or force or says_disk_full(str(error)):
                    raise
                log.warning("%s: using lists of %.0f hours ago", error.summary, age / 3600)
                return
        stamp.write_text(self._apt.source_list())

    # choosing and downloading

    def _resolve(self, packages: Sequence[str], alone: Sequence[str]) -> list[Selected]:
        chosen = {one.name: one for one in self._closure(packages)}
        if alone:
            self._pretend(self._closure(alone), alone)
            chosen |= {one.name: one for one in self._closure(alone, ALONE)}
        return [chosen[name] for name in sorted(chosen)]

    def _closure(self, packages: Sequence[str], status: str = "status") -> list[Selected]:
        if not packages:
            return []
        # With an archive directory that is empty apt prints every file, not only missing ones.
        printed = self._apt.run(
            ["-qq", "--print-uris", "install", *packages],
            f"resolve {' '.join(packages)} in {self.suite}",
            {
                "Dir::Cache::archives": self.root / "empty",
                "Dir::State::status": self.root / status,
            },
        )
        return parse_print_uris(printed)

    def _pretend(self, closure: Sequence[Selected], alone: Sequence[str]) -> None:
        """Write a dpkg status in which all that the packages *alone* need is installed.

        And held: apt would "upgrade" what is needed in exactly its version to the real one.
        """
        asked = {name.partition("=")[0] for name in alone}  # name=version picks a version
        others = [one for one in closure if one.name not in asked]
        text = assumed_status(self._apt.assume) + "".join(
            f"\nPackage: {one.name}\nStatus: hold ok installed\nVersion: {one.version}\n"
            f"Architecture: {one.architecture}\nMaintainer: nobody\nDescription: pretended\n"
            for one in others
        )
        write_if_changed(self.root / ALONE, text)

    def _download(
        self, packages: Sequence[str], alone: Sequence[str], selected: Sequence[Selected]
    ) -> None:
        missing = [one for one in selected if not self._have(one)]
        if not missing:
            return
        amount = sum(one.size for one in missing) / 1e6
        with step("download %d packages of %s (%.1f MB)", len(missing), self.suite, amount):
            # Not "apt-get download": that one always begins from the first byte.
            for names, status in ((packages, "status"), (alone, ALONE)):
                if names:
                    self._apt.run(
                        ["--download-only", "install", *names],
                        f"download packages of {self.suite}",
                        {"Dir::State::status": self.root / status},
                    )

    def _have(self, one: Selected) -> bool:
        """Say whether the file is there and whole; one that is not is removed."""
        path = self.archives / one.file_name
        try:
            if path.stat().st_size == one.size and _sha256(path) == one.sha256:
                return True
        except FileNotFoundError:
            return False
        log.warning("%s is damaged; it is downloaded again", path)
        path.unlink()
        return False

    def _verified(self, one: Selected) -> Package:
        path = self.archives / one.file_name
        if not self._have(one):
            raise ImageError(
                f"{one.name} {one.version} is not what the list of {self.suite} says",
                evidence=path,
                hint="try again; if it stays, use another mirror (TRAPLINE_MIRROR)",
            )
        return Package(one.name, one.version, one.architecture, path, one.sha256)


def parse_print_uris(text: str) -> list[Selected]:
    """Parse ``apt-get --print-uris``: quoted URI, file name, size, ``SHA256:`` hash."""
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"'[^']*' (\S+_\S+_\S+\.deb) (\d+) SHA256:([0-9a-f]{64})", line)
        if match is None:
            continue
        name, version, architecture = match[1].removesuffix(".deb").split("_")
        found.append(
            Selected(name, unquote(version), architecture, match[1], int(match[2]), match[3])
        )
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
