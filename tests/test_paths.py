"""Run-time directories: private, removed, and swept when their owner was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness import paths


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def leave_one(base: Path) -> Path:
    """Let a process make a run-time directory and be killed."""
    code = (
        "import os; from harness import paths\n"
        "print(paths.runtime_dir(), flush=True); os.kill(0, 9)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    left = Path(said.stdout.strip())
    assert left.is_dir() and left.parent == base
    return left


def test_a_runtime_directory_is_private_and_new(base: Path) -> None:
    one, other = paths.runtime_dir(), paths.runtime_dir()

    assert one != other
    assert one.parent == base
    assert one.stat().st_mode & 0o777 == 0o700
    paths.remove_runtime_dir(one)
    paths.remove_runtime_dir(one)
    paths.remove_runtime_dir(other)
    assert list(base.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next(base: Path) -> None:
    left = leave_one(base)
    (left / "qmp.sock").touch()

    mine = paths.runtime_dir()

    assert list(base.iterdir()) == [mine]
    paths.remove_runtime_dir(mine)


def test_what_belongs_to_somebody_alive_stays(base: Path) -> None:
    mine = paths.runtime_dir()

    assert paths.sweep_runtime_dirs(base) == []
    assert mine.is_dir()
    paths.remove_runtime_dir(mine)


def test_what_is_not_marked_as_ours_stays(base: Path) -> None:
    (base / "trapline-notes").mkdir()

    assert paths.sweep_runtime_dirs(base) == []
    assert (base / "trapline-notes").is_dir()


def test_a_mark_that_is_a_link_is_not_followed(base: Path) -> None:
    (base / "trapline-x").mkdir()
    (base / "precious").touch()
    (base / "trapline-x/.owner").symlink_to(base / "precious")

    assert paths.sweep_runtime_dirs(base) == []


def test_a_runtime_directory_falls_back_to_the_temporary_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "none"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    made = paths.runtime_dir()

    assert made.parent == tmp_path
    paths.remove_runtime_dir(made)
