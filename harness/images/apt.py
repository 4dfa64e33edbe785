"""apt in a root of its own: settings, a run, and its complaints as our errors."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import process
from harness.errors import ImageError
from harness.images.mirror import Mirror
from harness.images.tools import (
    DISK_FULL_HINT,
    missing_program,
    says_disk_full,
    tool_environment,
)

Progress = Callable[[str, float], None]
"""Called with what is going on and how much of it is done, percent."""

_BASE = {"experimental": "sid", "rc-buggy": "sid"}
"""Suites that hold only what another one does not, and that other one."""

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
_GONE = (
    "404  Not Found",
    "404 Not Found",
    "Failed to stat",  # the same of a mirror in the file system
    "Hash Sum mismatch",
    "File has unexpected size",
)


class Outdated(ImageError):
    """The lists name files that the mirror no longer has."""


@dataclass(frozen=True, slots=True)
class Apt:
    """A private apt for one suite of one mirror.

    Nothing of the machine's own apt is read but its proxies and the like.
    """

    root: Path
    """Lists, settings, an empty dpkg status."""
    archives: Path
    """Downloaded packages, shared by all suites."""
    suite: str
    mirror: Mirror
    assume: tuple[str, ...] = ()
    """Packages to take as installed."""
    progress: Progress | None = None
    architecture: str = "amd64"
    kind: str = "deb"
    """``deb``: packages; ``deb-src``: what they are built from."""

    def write_settings(self) -> None:
        """Make the directories and write the settings, if they are not so already."""
        root = self.root
        for part in ("lists/partial", "etc", "cache", "empty/partial"):
            (root / part).mkdir(parents=True, exist_ok=True)
        (self.archives / "partial").mkdir(parents=True, exist_ok=True)
        write_if_changed(root / "status", assumed_status(self.assume))
        write_if_changed(root / "etc/sources.list", self.source_list())
        write_if_changed(root / "etc/preferences", self._preferences())
        write_if_changed(root / "apt.conf", self._configuration())

    def source_list(self) -> str:
        """Return the content of ``sources.list``."""
        # file: would be used in place; copy: fills the archive directory like any other.
        uri = re.sub("^file:", "copy:", self.mirror.uri)
        options = [f"arch={self.architecture}"]
        if self.mirror.trusted:
            options.append("trusted=yes")
        if self.mirror.keyring is not None:
            options.append(f"signed-by={self.mirror.keyring}")
        suites = [_BASE.get(self.suite, self.suite.removesuffix("-backports")), self.suite]
        return "".join(
            f"{self.kind} [{' '.join(options)}] {uri} {suite} main\n"
            for suite in dict.fromkeys(suites)
        )

    def _configuration(self) -> str:
        return _CONFIGURATION.format(root=self.root, architecture=self.architecture)

    def _preferences(self) -> str:
        if not self.suite.endswith("-backports"):
            return ""
        return f"Package: *\nPin: release n={self.suite}\nPin-Priority: 990\n"

    def run(
        self,
        words: Sequence[str],
        purpose: str,
        options: Mapping[str, Path] | None = None,
        cwd: Path | None = None,
    ) -> str:
        """Run apt-get with our settings and return what it printed.

        :param cwd: where it works; that is where it puts what a package is built from.
        :raise ImageError: it failed; `Outdated` if the lists are.
        """
        read_end, write_end = os.pipe()
        argv = ["apt-get", "-c", str(self.root / "apt.conf"), "-y"]
        argv += ["-o", f"APT::Status-Fd={write_end}"]
        argv += [
            word for name, path in (options or {}).items() for word in ("-o", f"{name}={path}")
        ]
        argv += words
        with tempfile.TemporaryFile() as complaint, tempfile.TemporaryFile() as output:
            try:
                child = process.start(
                    argv,
                    stdout=output,
                    stderr=complaint,
                    env=tool_environment(_without_apt_config()),
                    pass_fds=[write_end],
                    cwd=cwd,
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
                raise self.failure(purpose, complaint.read().decode(errors="replace"))
            return output.read().decode(errors="replace")

    def _listen(self, read_end: int, purpose: str) -> None:
        with os.fdopen(read_end, errors="replace") as lines:
            for line in lines:
                fields = line.rstrip("\n").split(":", 3)
                if self.progress is not None and len(fields) == 4 and fields[0] == "dlstatus":
                    self.progress(purpose, float(fields[2]))

    def failure(self, purpose: str, said: str) -> ImageError:
        """Return the error that apt's complaint *said* stands for."""
        seen = "\n".join(
            line for line in said.splitlines() if line.startswith(("E:", "W:", "Err:", " "))
        )
        seen = "\n".join((seen or said).strip().splitlines()[-8:])
        if says_disk_full(said):
            return ImageError(
                f"{purpose}: the disk is full", seen=seen, hint=DISK_FULL_HINT, evidence=self.root
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
        if any(sign in said for sign in _GONE):
            return Outdated(
                f"{purpose}: the mirror does not have what its lists say",
                seen=seen,
                evidence=self.root,
                hint="it may be changing just now: try again later, or give another mirror "
                "(TRAPLINE_MIRROR)",
            )
        return ImageError(f"{purpose}: apt-get failed", seen=seen, evidence=self.root)


def assumed_status(names: Sequence[str]) -> str:
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


def write_if_changed(path: Path, text: str) -> None:
    """Write *text* unless it is there already."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


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
APT::Architecture "{architecture}";
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
APT::Architectures {{ "{architecture}"; }};
#clear APT::Default-Release;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
"""
