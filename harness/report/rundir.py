"""The directory of one run: what is in it and how the places in it are named."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from harness.errors import ConfigError

LATEST = "latest"
_NAME_LENGTH = 80


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """``results/<YYYYmmdd-HHMMSS>-<4 hex>/``, absolute."""

    path: Path

    @classmethod
    def create(cls, base: Path, now: datetime) -> RunDirectory:
        """Make a new one under *base*.

        :raise ConfigError: none can be made there.
        """
        base = base.absolute()
        try:
            base.mkdir(parents=True, exist_ok=True)
            while True:
                path = base / f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
                with contextlib.suppress(FileExistsError):
                    path.mkdir()
                    break
        except OSError as error:
            raise _no_place(base, error) from error
        return cls(path)

    def forget(self) -> None:
        """Remove it with all that is in it, as far as that can be done."""
        shutil.rmtree(self.path, ignore_errors=True)

    def become_latest(self) -> None:
        """Let ``latest`` beside it point to it."""
        _point(self.path.parent / LATEST, self.path.name)

    @property
    def report_log(self) -> Path:
        """Every report of the run, one JSON object a line: the source of all other formats."""
        return self.path / "report.jsonl"

    @property
    def junit(self) -> Path:
        """JUnit XML."""
        return self.path / "junit.xml"

    @property
    def summary(self) -> Path:
        """Plain text for a mail."""
        return self.path / "summary.txt"

    @property
    def facts(self) -> Path:
        """What was run, where, on what, as JSON."""
        return self.path / "run.json"

    def place(self, nodeid: str) -> Path:
        """Return where the evidence of a test belongs; nothing is made."""
        return self.path / "tests" / evidence_name(nodeid)

    def evidence(self, nodeid: str) -> Path:
        """Make and return the directory of a test."""
        place = self.place(nodeid)
        place.mkdir(parents=True, exist_ok=True)
        return place


RUN = pytest.StashKey[RunDirectory]()


def evidence_name(nodeid: str) -> str:
    """Return a directory name for *nodeid*: readable, short, its own.

    The hash keeps apart what sanitising and cutting make equal.
    """
    file, _, test = nodeid.partition("::")
    readable = f"{Path(file).stem}-{test}" if test else Path(file).stem
    clean = re.sub(r"[^A-Za-z0-9._]+", "-", readable).strip("-.")[:_NAME_LENGTH]
    return f"{clean}-{hashlib.sha256(nodeid.encode()).hexdigest()[:8]}"


def check_base(base: Path) -> None:
    """Make sure that runs can be kept under *base*, which is made if need be.

    Only trying tells: root may write to /proc, and still make nothing there.

    :raise ConfigError: they cannot.
    """
    try:
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=base, prefix=".trial-"):
            pass
    except OSError as error:
        raise _no_place(base, error) from error


def latest(base: Path) -> RunDirectory | None:
    """Return the last run under *base*, None if there is none."""
    link = base / LATEST
    return RunDirectory(link.resolve()) if link.is_dir() else None


def _no_place(base: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"results cannot be kept in {base}",
        seen=error.strerror or str(error),
        hint="name a directory that can be written: --results DIR",
    )


def _point(link: Path, target: str) -> None:
    """Replace *link* in one move: two runs may begin at once."""
    if link.exists() and not link.is_symlink():
        return
    fresh = link.with_name(f".{LATEST}-{target}")
    fresh.symlink_to(target)
    os.replace(fresh, link)
