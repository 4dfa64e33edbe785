"""A Debian archive in a directory, made by hand; every test has a cache of its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.images.mirror import Mirror


@dataclass
class Archive:
    """An unsigned archive with hand-written lists."""

    root: Path
    scratch: Path
    stanzas: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def mirror(self) -> Mirror:
        return Mirror(f"file:{self.root}", trusted=True)

    def add(
        self,
        name: str,
        version: str = "1.0",
        *,
        depends: str = "",
        files: dict[str, str | bytes] | None = None,
        suite: str = "trixie",
    ) -> Path:
        """Build a package, put it into *suite*, write the lists; returns the package file."""
        tree = self.scratch / f"{name}_{version}"
        (tree / "DEBIAN").mkdir(parents=True)
        control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n"
        control += f"Maintainer: nobody <n@example.org>\nDescription: {name}\n"
        if depends:
            control += f"Depends: {depends}\n"
        (tree / "DEBIAN/control").write_text(control)
        for place, text in (files or {f"usr/share/{name}": f"{name} {version}\n"}).items():
            data = text if isinstance(text, bytes) else text.encode()
            (tree / place).parent.mkdir(parents=True, exist_ok=True)
            (tree / place).write_bytes(data)
            (tree / place).chmod(0o755 if data.startswith(b"#!") else 0o644)
        pool = self.root / "pool"
        pool.mkdir(parents=True, exist_ok=True)
        deb = pool / f"{name}_{version.replace(':', '%3a')}_amd64.deb"
        subprocess.run(
            ["dpkg-deb", "-Znone", "--build", "--root-owner-group", tree, deb],
            check=True,
            capture_output=True,
        )
        data = deb.read_bytes()
        stanza = f"{control}Filename: pool/{deb.name}\nSize: {len(data)}\n"
        stanza += f"SHA256: {hashlib.sha256(data).hexdigest()}\n"
        self.stanzas.setdefault(suite, {})[name] = stanza
        self.publish()
        return deb

    def publish(self) -> None:
        for suite, stanzas in self.stanzas.items():
            binary = self.root / f"dists/{suite}/main/binary-amd64"
            binary.mkdir(parents=True, exist_ok=True)
            packages = "\n".join(stanzas.values()).encode()
            (binary / "Packages").write_bytes(packages)
            digest = hashlib.sha256(packages).hexdigest()
            (self.root / f"dists/{suite}/Release").write_text(
                f"Origin: Debian\nLabel: Debian\nSuite: {suite}\nCodename: {suite}\n"
                "Date: Sat, 01 Jan 2022 00:00:00 UTC\nArchitectures: amd64\nComponents: main\n"
                + ("NotAutomatic: yes\n" if suite.endswith("-backports") else "")
                + f"SHA256:\n {digest} {len(packages)} main/binary-amd64/Packages\n"
            )


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own; variables of the caller do not count."""
    for name in list(os.environ):
        if name.startswith("TRAPLINE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TRAPLINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """An archive with ``app`` needing ``library``."""
    made = Archive(tmp_path / "archive", tmp_path / "scratch")
    made.add("library", "2:1.5-1")
    made.add("app", "1.0", depends="library (>= 2:1.0), setup | other-setup")
    made.add("setup", "3", depends="perl")
    made.add("perl", "5")
    return made


@pytest.fixture
def old_lists(cache: Path) -> Callable[[], None]:
    """Let every package list of the cache look two days old, when called."""

    def make_old() -> None:
        for stamp in cache.glob("apt/*/updated"):
            os.utime(stamp, (time.time() - 2 * 86400,) * 2)

    return make_old


@pytest.fixture
def fake_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Make a shell script that is found before the real program of that name."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")

    def make(name: str, body: str) -> Path:
        script = place / name
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
        return script

    return make
