"""Source packages: what apt prints of them, unpacking, Debian's patches."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.errors import ImageError
from harness.images.debian_source import (
    SourceFile,
    parse_source_uris,
    series_of,
    unpack_source,
)

HASH = "0123456789abcdef" * 4


def test_the_files_of_a_source_are_read_from_what_apt_prints() -> None:
    text = (
        f"'http://mirror/pool/q/qemu/qemu_10.0.13%2bds.dsc' qemu_10.0.13+ds.dsc 10 SHA256:{HASH}\n"
        "Reading package lists...\n"
        f"'http://mirror/q.orig.tar.xz' qemu_10.0.13+ds.orig.tar.xz 20 SHA256:{HASH}\n"
    )

    assert parse_source_uris(text) == [
        SourceFile("qemu_10.0.13+ds.dsc", 10, HASH),
        SourceFile("qemu_10.0.13+ds.orig.tar.xz", 20, HASH),
    ]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A source package of one file and one patch."""
    place = tmp_path / "files"
    place.mkdir()
    (tmp_path / "it-1").mkdir()
    (tmp_path / "it-1/main.c").write_text("int main;\n")
    (tmp_path / "debian/patches").mkdir(parents=True)
    (tmp_path / "debian/patches/series").write_text("# first\n\none.patch -p1\ntwo.diff\n")
    for name, tree in {"it_1.orig.tar.xz": "it-1", "it_1-1.debian.tar.xz": "debian"}.items():
        subprocess.run(["tar", "-cJf", place / name, "-C", tmp_path, tree], check=True)
    return place


def test_a_source_is_unpacked_with_what_debian_adds(files: Path, tmp_path: Path) -> None:
    unpack_source(files, tmp_path / "src")

    assert (tmp_path / "src/main.c").read_text() == "int main;\n"
    assert series_of(tmp_path / "src") == ["debian/patches/one.patch", "debian/patches/two.diff"]


def test_a_source_of_another_format_is_refused(files: Path, tmp_path: Path) -> None:
    (files / "it_1-1.debian.tar.xz").unlink()

    with pytest.raises(ImageError, match=r"another format.*") as refused:
        unpack_source(files, tmp_path / "src")

    assert "it_1.orig.tar.xz" in str(refused.value)


def test_a_source_without_patches_has_none(tmp_path: Path) -> None:
    assert series_of(tmp_path) == []
