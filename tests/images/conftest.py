"""A Debian archive in a directory, made by hand; every test has a cache of its own."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
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
    stanzas: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    """By suite and architecture; packages for all are in the lists of each."""

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
        architecture: str = "amd64",
    ) -> Path:
        """Build a package, put it into *suite*, write the lists; returns the package file."""
        tree = self.scratch / f"{name}_{version}_{architecture}"
        shutil.rmtree(tree, ignore_errors=True)
        (tree / "DEBIAN").mkdir(parents=True)
        control = f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n"
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
        deb = pool / f"{name}_{version.replace(':', '%3a')}_{architecture}.deb"
        subprocess.run(
            ["dpkg-deb", "-Znone", "--build", "--root-owner-group", tree, deb],
            check=True,
            capture_output=True,
        )
        data = deb.read_bytes()
        stanza = f"{control}Filename: pool/{deb.name}\nSize: {len(data)}\n"
        stanza += f"SHA256: {hashlib.sha256(data).hexdigest()}\n"
        for listed in ("amd64", "s390x") if architecture == "all" else (architecture,):
            self.stanzas.setdefault((suite, listed), {})[name] = stanza
        self.publish()
        return deb

    def publish(self) -> None:
        for suite in {suite for suite, _ in self.stanzas}:
            sums = ""
            architectures = [a for s, a in self.stanzas if s == suite]
            for architecture in architectures:
                place = f"main/binary-{architecture}/Packages"
                packages = "\n".join(self.stanzas[suite, architecture].values()).encode()
                path = self.root / f"dists/{suite}" / place
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(packages)
                sums += f" {hashlib.sha256(packages).hexdigest()} {len(packages)} {place}\n"
            (self.root / f"dists/{suite}/Release").write_text(
                f"Origin: Debian\nLabel: Debian\nSuite: {suite}\nCodename: {suite}\n"
                "Date: Sat, 01 Jan 2022 00:00:00 UTC\n"
                f"Architectures: {' '.join(architectures)}\nComponents: main\n"
                + ("NotAutomatic: yes\n" if suite.endswith("-backports") else "")
                + f"SHA256:\n{sums}"
            )


class ElfFiles:
    """Small ELF files made by hand, of either byte order."""

    S390 = 22

    @staticmethod
    def elf(
        sections: dict[str, bytes], *, order: str = ">", machine: int = 22, dynamic: bool = False
    ) -> bytes:
        """Return a 64-bit file with *sections*, and a PT_DYNAMIC header if it is *dynamic*."""
        names = b"\0"
        placed = []
        body = b""
        start = 0x40 + 56
        for name, data in {**sections, ".shstrtab": b""}.items():
            at = len(names)
            names += name.encode() + b"\0"
            placed.append((at, start + len(body), data))
            body += data
        placed[-1] = (placed[-1][0], start + len(body), names)
        body += names
        table = start + len(body)

        def header(name: int, kind: int, offset: int, size: int) -> bytes:
            return struct.pack(f"{order}IIQQQQIIQQ", name, kind, 0, 0, offset, size, 0, 0, 1, 0)

        rows = bytes(64) + b"".join(
            header(at, 1, offset, len(data)) for at, offset, data in placed
        )
        ident = b"\x7fELF\x02" + (b"\1" if order == "<" else b"\2") + b"\1" + bytes(9)
        head = ident + struct.pack(
            f"{order}HHIQQQIHHHHHH",
            1, machine, 1, 0, 0x40, table, 0, 64, 56, 1 if dynamic else 0, 64, len(placed) + 1,
            len(placed),
        )  # fmt: skip
        segment = struct.pack(f"{order}II6Q", 2 if dynamic else 0, 0, 0, 0, 0, 0, 0, 0)
        return head + segment + body + rows

    @staticmethod
    def program(*libraries: str, order: str = ">") -> bytes:
        """Return a file linked with *libraries*."""
        names, rows = b"\0", b""
        for library in libraries:
            rows += struct.pack(f"{order}qQ", 1, len(names))
            names += library.encode() + b"\0"
        sections = {".dynstr": names, ".dynamic": rows + bytes(16)}
        return ElfFiles.elf(sections, order=order, dynamic=True)

    @staticmethod
    def module(
        name: str,
        *,
        vermagic: str = "6.12-test SMP",
        size: int = 1536,
        init_at: int = 312,
        versions: dict[str, int] | None = None,
        depends: str = "",
        order: str = ">",
    ) -> bytes:
        """Return a kernel module."""
        tags = f"name={name}\0vermagic={vermagic}\0depends={depends}\0".encode()
        strings = b"\0init_module\0cleanup_module\0"
        symbols = b"".join(struct.pack(f"{order}IBBHQQ", at, 0, 0, 0, 0, 0) for at in (0, 1, 13))
        relocations = b"".join(
            struct.pack(f"{order}QQq", at, symbol << 32, 0)
            for at, symbol in ((init_at, 1), (size - 120, 2))
        )
        sections = {
            ".modinfo": tags,
            ".gnu.linkonce.this_module": bytes(size),
            ".rela.gnu.linkonce.this_module": relocations,
            ".symtab": symbols,
            ".strtab": strings,
        }
        if versions is not None:
            sections["__versions"] = b"".join(
                struct.pack(f"{order}Q56s", crc, symbol.encode())
                for symbol, crc in versions.items()
            )
        return ElfFiles.elf(sections, order=order)


@pytest.fixture(scope="session")
def elves() -> type[ElfFiles]:
    """A maker of ELF files, programs and kernel modules."""
    return ElfFiles


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
