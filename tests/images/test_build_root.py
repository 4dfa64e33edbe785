"""Entering a tree of programs: with namespaces, and without."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ImageError
from harness.images import build_root
from harness.images.build_root import BuildRoot, obtain_build_root
from harness.images.libraries import LOADER, needed_libraries
from harness.images.recipe import PackageSet
from harness.images.tools import run_tool
from harness.images.workshop import Workshop


@pytest.fixture
def root(tmp_path: Path) -> BuildRoot:
    """A tree with env, cat and sh of this machine."""
    tree = tmp_path / "tree"
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "bin").symlink_to("usr/bin")
    for name in ("lib64", "dev", "proc", "work"):
        (tree / name).mkdir()
    for name in ("env", "cat", "sh"):
        program = Path(shutil.which(name) or name).resolve()
        shutil.copy(program, tree / "usr/bin" / name)
        for library in needed_libraries(Path("/lib64") / LOADER, [], program):
            target = tree / str(library).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
    return BuildRoot(tree, "key")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    place = tmp_path / "work"
    place.mkdir()
    (place / "input").write_text("given\n")
    return place


def test_a_program_of_the_tree_sees_its_work_and_nothing_of_this_machine(
    root: BuildRoot, work: Path
) -> None:
    script = f"cat input > output; cat /dev/null {work / 'input'} 2>> output; echo $HOME."

    said = root.run(["sh", "-c", script], work, purpose="look around")

    assert said == ".\n"
    assert (work / "output").read_text().startswith("given\n")
    assert "No such file" in (work / "output").read_text()


def test_a_program_that_fails_is_quoted(root: BuildRoot, work: Path) -> None:
    with pytest.raises(ImageError, match="compile mdev") as raised:
        root.run(["cat", "nosuch.c"], work, purpose="compile mdev")

    assert "nosuch.c" in raised.value.seen


def test_without_namespaces_root_enters_a_copy_and_gets_its_work_back(
    root: BuildRoot, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered: list[list[str]] = []

    def enter(argv: Sequence[Any], **_: Any) -> str:
        entered.append([os.fspath(word) for word in argv])
        copy = Path(argv[1])
        inside = copy / "work"
        (inside / "output").write_text((inside / "input").read_text())
        return "done"

    made: list[str] = []
    monkeypatch.setattr(build_root, "_namespaces", lambda: None)
    monkeypatch.setattr(build_root, "run_tool", enter)
    monkeypatch.setattr("os.mknod", lambda path, *_: made.append(path.name))

    assert root.run(["make"], work, purpose="x") == "done"

    assert entered[0][0] == "chroot"
    assert entered[0][-1] == "make"
    assert "null" in made
    assert (work / "output").read_text() == "given\n"
    assert sorted(path.name for path in work.parent.iterdir() if path != root.root) == ["work"]


def test_a_user_without_namespaces_is_told_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(argv: Sequence[Any], **_: Any) -> str:
        return run_tool(["sh", "-c", "echo unshare failed: Operation not permitted >&2; exit 1"],
                        purpose="enter")  # fmt: skip

    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(build_root, "run_tool", refuse)

    with pytest.raises(ImageError, match="may not have namespaces") as raised:
        build_root._namespaces.__wrapped__()

    assert "not permitted" in raised.value.seen
    assert "unprivileged_userns_clone" in raised.value.hint


def test_the_tree_has_what_installation_scripts_would_have_made(
    archive: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAPLINE_MIRROR", archive.mirror.uri)
    monkeypatch.setenv("TRAPLINE_KEYRING", "none")
    archive.add("mawk", files={"usr/bin/mawk": "#!/bin/sh\n", "usr/share/doc/mawk/x": "x"})

    found = obtain_build_root(Workshop(), PackageSet(suite="trixie", packages=("mawk",)))

    assert os.readlink(found.root / "usr/bin/awk") == "mawk"
    assert not (found.root / "usr/share/doc").exists()
    assert {"dev", "work"} <= {path.name for path in found.root.iterdir()}
