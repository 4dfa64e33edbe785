"""Trees to archives and file systems, byte for byte the same each time."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import ImageError, MissingPackage
from harness.images.pack import make_cpio, make_erofs, remove_matching


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "sub/deep").mkdir(parents=True)
    (root / "sub/file").write_text("content")
    (root / "sub-link").symlink_to("sub/file")
    (root / "init").write_text("#!/bin/sh\n")
    (root / "init").chmod(0o755)
    return root


@pytest.mark.parametrize("make", [make_cpio, make_erofs])
def test_the_same_tree_gives_the_same_bytes(
    make: Callable[[Path, Path], None], tree: Path, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    make(tree, tmp_path / "a/image")
    (tree / "init").touch()

    make(tree, tmp_path / "b/image")

    assert (tmp_path / "a/image").read_bytes() == (tmp_path / "b/image").read_bytes()


def test_an_archive_has_directories_before_their_files(tree: Path, tmp_path: Path) -> None:
    make_cpio(tree, tmp_path / "image")

    with (tmp_path / "image").open("rb") as file:
        listed = subprocess.run(["cpio", "-t"], stdin=file, capture_output=True, text=True)

    assert listed.stdout.split() == ["init", "sub", "sub-link", "sub/deep", "sub/file"]


def test_a_full_disk_is_said_to_be_one(
    tree: Path, tmp_path: Path, fake_program: Callable[[str, str], Path]
) -> None:
    fake_program("mkfs.erofs", "echo 'mkfs.erofs: No space left on device' >&2; exit 1")

    with pytest.raises(ImageError, match=r"make root\.erofs: the disk is full"):
        make_erofs(tree, tmp_path / "root.erofs")


def test_a_missing_tool_names_its_package(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.images.tools._SYSTEM_PATH", "/nonexistent")
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(MissingPackage) as caught:
        make_erofs(tree, tmp_path / "image")

    assert caught.value.packages == ("erofs-utils",)


def test_patterns_remove_files_links_and_trees(tree: Path) -> None:
    remove_matching(tree, ["su*", "nosuch"])

    assert [path.name for path in tree.iterdir()] == ["init"]
