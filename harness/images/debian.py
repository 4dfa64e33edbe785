"""Packages of any Debian suite: resolved and downloaded by apt in a private root, unpacked.

Nothing is installed and nothing of a package is executed. apt works on directories below the
cache (lists, an empty dpkg status, its own settings), so no root is needed and the machine's
own package state is neither read nor changed. Proxies of the machine's apt are honoured.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from harness import paths, process
from harness.errors import ImageError
from harness.images.locks import hold
from harness.images.mirror import Mirror, machine_mirror
from harness.images.tools import (
    DISK_FULL_HINT,
    is_disk_full,
    missing_program,
    run_tool,
    says_disk_full,
    tool_environment,
)
from harness.step import step

__all__ = ["DebianSuite", "Package", "Selected", "machine_mirror", "unpack"]

log = logging.getLogger(__name__)

LISTS_ARE_OLD = 24 * 3600.0
"""Age in seconds at which package lists are fetched again."""

Progress = Callable[[str, float], None]
"""Called with what is going on and how much of it is done, percent."""

_OFFLINE = (
    "Temporary failure resolving",
    "Could not resolve",
    "Could not connect",
    "Unable to connect",
    "Connection failed",
    "Connection timed out",
    "Network is unreachable",
    "Connection refused",
)
_GONE = ("404  Not Found", "404 Not Found", "Hash Sum mismatch", "File has unexpected size")


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


class DebianSuite:
    """One suite of a Debian archive, with a private apt.

    :param suite: ``trixie``, ``sid``, ``trixie-backports``; of a backports suite packages are
        preferred, its base suite is there for everything it lacks.
    :param assume: package names to take as installed, their dependencies with them; for
        dependencies that only maintainer scripts need.
    """

    def __init__(
        self,
        suite: str,
        mirror: Mirror | None = None,
        *,
        assume: Iterable[str] = (),
        cache: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.suite = suite
        self.mirror = mirror or machine_mirror()
        self.assume = tuple(sorted(assume))
        self.progress = progress
        self._apt = (cache or paths.cache_dir()) / "apt"
        # Lists belong to a mirror; archives are told apart by their verified hashes.
        origin = hashlib.sha256(self.mirror.uri.encode()).hexdigest()[:8]
        self.root = self._apt / f"{suite}-{origin}"
        self.archives = self._apt / "archives"

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
                self._download(selected)
            except _Outdated:
                # The mirror moved on since the lists were fetched.
                self._refresh(force=True)
                selected = self._resolve(packages, alone)
                self._download(selected)
            return [self._verified(one) for one in selected]

    def resolve(self, packages: Sequence[str], *, alone: Sequence[str] = ()) -> list[Selected]:
        """Return what `fetch` would download, sorted by name."""
        with self._locked(f"resolve packages of {self.suite}"):
            self._refresh()
            return self._resolve(packages, alone)

    def _locked(self, purpose: str) -> _Locked:
        return _Locked(self._apt / "lock", purpose)

    # apt's private root

    def _settings(self) -> Path:
        root = self.root
        for part in ("lists/partial", "etc", "cache", "empty/partial"):
            (root / part).mkdir(parents=True, exist_ok=True)
        (self.archives / "partial").mkdir(parents=True, exist_ok=True)
        _write(root / "status", _assumed_status(self.assume))
        _write(root / "etc/sources.list", self._source_list())
        _write(root / "etc/preferences", self._preferences())
        _write(root / "apt.conf", _CONFIGURATION.format(root=root))
        return root / "apt.conf"

    def _source_list(self) -> str:
        # file: would be used in place; copy: fills the archive directory like any other.
        uri = re.sub("^file:", "copy:", self.mirror.uri)
        options = ["arch=amd64"]
        if self.mirror.trusted:
            options.append("trusted=yes")
        if self.mirror.keyring is not None:
            options.append(f"signed-by={self.mirror.keyring}")
        suites = [self.suite.removesuffix("-backports"), self.suite]
        return "".join(
            f"deb [{' '.join(options)}] {uri} {suite} main\n" for suite in dict.fromkeys(suites)
        )

    def _preferences(self) -> str:
        if not self.suite.endswith("-backports"):
            return ""
        return f"Package: *\nPin: release n={self.suite}\nPin-Priority: 990\n"

    def _refresh(self, *, force: bool = False) -> None:
        """Fetch the package lists when they are old; old ones do when there is no network."""
        self._settings()
        stamp = self.root / "updated"
        try:
            age = time.time() - stamp.stat().st_mtime
        except FileNotFoundError:
            age = float("inf")
        unchanged = stamp.exists() and stamp.read_text() == self._source_list()
        if unchanged and 0 <= age < LISTS_ARE_OLD and not force:
            return
        with step("fetch package lists of %s", self.suite):
            try:
                self._apt_get(["update"], f"fetch package lists of {self.suite}")
            except ImageError as error:
                if not unchanged or force or says_disk_full(str(error)):
                    raise
                log.warning("%s: using lists of %.0f hours ago", error.summary, age / 3600)
                return
        stamp.write_text(self._source_list())

    # choosing and downloading

    def _resolve(self, packages: Sequence[str], alone: Sequence[str]) -> list[Selected]:
        chosen = {one.name: one for one in self._closure(packages)}
        if alone:
            closure = {one.name: one for one in self._closure(alone)}
            chosen |= {name: closure[name] for name in alone}
        return [chosen[name] for name in sorted(chosen)]

    def _closure(self, packages: Sequence[str]) -> list[Selected]:
        if not packages:
            return []
        # With an archive directory that is empty apt prints every file, not only missing ones.
        options = ["-qq", "--print-uris", "-o", f"Dir::Cache::archives={self.root}/empty"]
        purpose = f"resolve {' '.join(packages)} in {self.suite}"
        return parse_print_uris(self._apt_get([*options, "install", *packages], purpose))

    def _download(self, selected: Sequence[Selected]) -> None:
        missing = [one for one in selected if not self._have(one)]
        if not missing:
            return
        amount = sum(one.size for one in missing) / 1e6
        with step("download %d packages of %s (%.1f MB)", len(missing), self.suite, amount):
            # "download" takes the current directory for the archive directory.
            self._apt_get(
                ["download", *(f"{one.name}={one.version}" for one in missing)],
                f"download packages of {self.suite}",
                cwd=self.archives,
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

    def _apt_get(self, words: Sequence[str], purpose: str, cwd: Path | None = None) -> str:
        """Run apt-get with our settings; its progress goes to `progress`."""
        read_end, write_end = os.pipe()
        argv = ["apt-get", "-c", str(self.root / "apt.conf"), "-y"]
        argv += ["-o", f"APT::Status-Fd={write_end}", *words]
        with tempfile.TemporaryFile() as complaint, tempfile.TemporaryFile() as output:
            try:
                child = process.start(
                    argv,
                    stdout=output,
                    stderr=complaint,
                    cwd=cwd,
                    env=tool_environment(_without_apt_config()),
                    pass_fds=[write_end],
                )
            except FileNotFoundError as error:
                os.close(read_end)
                raise missing_program("apt-get") from error
            finally:
                os.close(write_end)
            listener = threading.Thread(target=self._listen, args=(read_end, purpose))
            listener.start()
            try:
                status = child.wait()
            except BaseException:
                process.kill(child)
                raise
            finally:
                listener.join()
            output.seek(0)
            complaint.seek(0)
            if status != 0:
                raise self._failure(purpose, complaint.read().decode(errors="replace"))
            return output.read().decode(errors="replace")

    def _listen(self, read_end: int, purpose: str) -> None:
        with os.fdopen(read_end, errors="replace") as lines:
            for line in lines:
                fields = line.rstrip("\n").split(":", 3)
                if self.progress is not None and len(fields) == 4 and fields[0] == "dlstatus":
                    self.progress(purpose, float(fields[2]))

    def _failure(self, purpose: str, said: str) -> ImageError:
        seen = "\n".join(
            line for line in said.splitlines() if line.startswith(("E:", "W:", "Err:", " "))
        )
        seen = "\n".join((seen or said).strip().splitlines()[-8:])
        if says_disk_full(said):
            return ImageError(
                f"{purpose}: the disk is full", seen=seen, hint=DISK_FULL_HINT, evidence=self._apt
            )
        if "Unable to locate package" in said or "no installation candidate" in said:
            return ImageError(
                f"{purpose}: the mirror has no such package",
                seen=seen,
                evidence=self.mirror.uri,
                hint="check the name and the suite, or give another mirror (TRAPLINE_MIRROR)",
            )
        if "does not have a Release file" in said:
            return ImageError(
                f"{purpose}: the mirror has no suite {self.suite}, or cannot be reached",
                seen=seen,
                evidence=self.mirror.uri,
                hint="check the suite's name, or give another mirror (TRAPLINE_MIRROR)",
            )
        if any(sign in said for sign in _OFFLINE):
            return ImageError(
                f"{purpose}: the mirror cannot be reached",
                seen=seen,
                evidence=self.mirror.uri,
                hint="connect to the network once (after that the cache does), or give a mirror "
                "that can be reached (TRAPLINE_MIRROR)",
            )
        if "NO_PUBKEY" in said or "not signed" in said:
            return ImageError(
                f"{purpose}: the signature of {self.suite} cannot be checked",
                seen=seen,
                evidence=self.mirror.keyring,
                hint="install a newer debian-archive-keyring, or give one (TRAPLINE_KEYRING)",
            )
        kind = _Outdated if any(sign in said for sign in _GONE) else ImageError
        return kind(f"{purpose}: apt-get failed", seen=seen, evidence=self.root)


class _Outdated(ImageError):
    """The lists name files that the mirror no longer has."""


class _Locked:
    """Hold apt's directories; a full disk inside becomes an `ImageError`."""

    def __init__(self, path: Path, purpose: str) -> None:
        self._purpose = purpose
        self._held = hold(path, purpose)

    def __enter__(self) -> None:
        self._held.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        self._held.__exit__(None, None, None)
        if isinstance(error, OSError) and is_disk_full(error):
            raise ImageError(
                f"{self._purpose}: the disk is full", seen=str(error), hint=DISK_FULL_HINT
            ) from error


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
            ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", into],
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


def _assumed_status(names: Sequence[str]) -> str:
    """Return a dpkg status in which one installed package provides all of *names*."""
    if not names:
        return ""
    provides = ", ".join(f"{name} (= 999:1)" for name in names) + ", " + ", ".join(names)
    return (
        "Package: trapline-assumed\nStatus: install ok installed\nArchitecture: all\n"
        "Version: 1\nMaintainer: nobody\nDescription: what is taken as installed\n"
        f"Provides: {provides}\n"
    )


def _without_apt_config() -> Mapping[str, str]:
    return {"APT_CONFIG": "", "DEBIAN_FRONTEND": "noninteractive"}


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_CONFIGURATION = """\
Dir::State "{root}/";
Dir::State::lists "{root}/lists/";
Dir::State::status "{root}/status";
Dir::State::extended_states "{root}/extended_states";
Dir::Cache "{root}/cache/";
Dir::Cache::archives "{root}/../archives/";
Dir::Etc::sourcelist "{root}/etc/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "{root}/etc/preferences";
Dir::Etc::preferencesparts "/dev/null";
Dir::Log "{root}/";
APT::Architecture "amd64";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Get::List-Cleanup "true";
// bookworm's and trixie's apt: a list that cannot be fetched is an error, not a remark.
APT::Update::Error-Mode "any";
APT::Keep-Downloaded-Packages "true";
Debug::NoLocking "true";
Acquire::ForceHash "SHA256";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
#clear APT::Architectures;
APT::Architectures {{ "amd64"; }};
#clear APT::Default-Release;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
"""
