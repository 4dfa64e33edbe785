"""What Debian builds a package from: fetched by apt in a private root, unpacked, patched.

The files are checked against the signed list; apt looked at the signature.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import paths
from harness.errors import ImageError
from harness.images.apt import Apt, Progress
from harness.images.cache import hash_file
from harness.images.locks import hold
from harness.images.mirror import Mirror, machine_mirror
from harness.images.tools import run_tool
from harness.step import step

_URI = re.compile(r"'[^']*' (\S+) (\d+) SHA256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source package: the description, an archive."""

    name: str
    size: int
    sha256: str


class DebianSources:
    """Source packages of one suite.

    :param suite: ``trixie``, ``sid``.
    """

    def __init__(
        self,
        suite: str,
        mirror: Mirror | None = None,
        *,
        cache: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.suite = suite
        mirror = mirror or machine_mirror()
        home = (cache or paths.cache_dir()) / "apt"
        origin = hashlib.sha256(mirror.uri.encode()).hexdigest()[:8]
        self._lock = home / "lock"
        self._apt = Apt(
            home / f"{suite}-source-{origin}", home / "archives", suite, mirror,
            progress=progress, kind="deb-src",
        )  # fmt: skip

    def resolve(self, package: str) -> list[SourceFile]:
        """Return the files of the newest source of *package*, by the mirror's lists of now.

        :raise ImageError: there is none, or no network.
        """
        with hold(self._lock, f"look for the source of {package}"):
            self._apt.write_settings()
            with step("fetch the list of sources of %s", self.suite):
                self._apt.run(["update"], f"fetch the list of sources of {self.suite}")
            said = self._apt.run(
                ["-qq", "--print-uris", "--only-source", "source", package],
                f"look for the source of {package} in {self.suite}",
            )
        files = parse_source_uris(said)
        if not files:
            raise ImageError(f"{self.suite} has no source of {package}", seen=said[-500:])
        return files

    def fetch(self, package: str, files: Sequence[SourceFile], into: Path) -> None:
        """Download *files* of *package* into the directory *into*.

        :raise ImageError: the mirror has other files by now, or cannot be reached.
        """
        amount = sum(one.size for one in files) / 1e6
        with (
            hold(self._lock, f"fetch the source of {package}"),
            step("download the source of %s (%.1f MB)", package, amount),
        ):
            self._apt.run(
                ["-qq", "--download-only", "--only-source", "source", package],
                f"download the source of {package}",
                cwd=into,
            )
        for one in files:
            path = into / one.name
            if not path.is_file() or hash_file(path) != one.sha256:
                raise ImageError(
                    f"{one.name} is not what the list of {self.suite} says",
                    evidence=path,
                    hint="try again; if it stays, use another mirror (TRAPLINE_MIRROR)",
                )


def parse_source_uris(text: str) -> list[SourceFile]:
    """Parse ``apt-get --print-uris source``: quoted URI, file name, size, ``SHA256:`` hash."""
    lines = (_URI.fullmatch(line) for line in text.splitlines())
    return [SourceFile(line[1], int(line[2]), line[3]) for line in lines if line]


def unpack_source(files: Path, into: Path) -> None:
    """Unpack a source package of format 3.0 (quilt): upstream's archive, then ``debian/``.

    Debian's patches are not applied: `series_of` names them.

    :raise ImageError: it has another format, or is damaged.
    """
    upstream = sorted(files.glob("*.orig.tar.*"))
    debian = sorted(files.glob("*.debian.tar.*"))
    if len(upstream) != 1 or len(debian) != 1:
        raise ImageError(
            "the source package has another format than 3.0 (quilt) with one archive",
            seen=", ".join(sorted(path.name for path in files.iterdir())),
        )
    into.mkdir()
    for archive, strip in ((upstream[0], 1), (debian[0], 0)):
        run_tool(
            [
                "tar", "-x", "-I", "xz -T0", "-f", archive, "-C", into, "--no-same-owner",
                f"--strip-components={strip}",
            ],
            purpose=f"unpack {archive.name}",
        )  # fmt: skip


def series_of(source: Path) -> list[str]:
    """Return Debian's patches of an unpacked source in their order, from its root."""
    series = source / "debian/patches/series"
    lines = series.read_text().splitlines() if series.is_file() else []
    return [
        f"debian/patches/{line.split()[0]}"
        for line in lines
        if line.strip() and not line.startswith("#")
    ]
