"""Python environments of the launcher: which may go, and that nothing else does."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.errors import ImageError
from harness.images.environments import DAY, Environment, environments, prune


@pytest.fixture
def venvs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAPLINE_CACHE", str(tmp_path / "ca che"))
    (tmp_path / "ca che/venv").mkdir(parents=True)
    return tmp_path / "ca che/venv"


def make(venvs: Path, name: str, checkout: Path | None, *, days: float = 0) -> Path:
    """Make an environment as pip leaves it; of a checkout that is there, if one is named."""
    made = venvs / f"{name}-3.12"
    record = made / "lib/python3.12/site-packages/trapline-0.1.0.dist-info/direct_url.json"
    record.parent.mkdir(parents=True)
    (made / "data").write_bytes(bytes(8192))
    if checkout is not None:
        record.write_text(json.dumps({"dir_info": {"editable": True}, "url": checkout.as_uri()}))
        (made / "complete").touch()
        when = time.time() - days * DAY
        os.utime(made / "complete", (when, when))
    return made


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    made = tmp_path / "check out"
    made.mkdir()
    (made / "pyproject.toml").touch()
    return made


def reasons(unused: float = 30, *, dry_run: bool = False) -> dict[str, tuple[bool, str]]:
    found = prune(unused, dry_run=dry_run)
    return {one.environment.name.split("-")[0]: (one.goes, one.why) for one in found}


def test_each_is_listed_with_its_checkout_size_and_last_use(venvs: Path, checkout: Path) -> None:
    made = make(venvs, "aaaa", checkout, days=3)

    (one,) = environments()

    assert one == Environment("aaaa-3.12", made, checkout, one.size, one.used)
    assert one.size >= 8192
    assert 2 < (time.time() - one.used) / DAY < 4
    (made / "data").unlink()
    assert environments() == [one]  # what was counted once is not counted again


def test_what_nobody_will_use_again_goes_and_the_rest_stays(
    venvs: Path, checkout: Path, tmp_path: Path
) -> None:
    make(venvs, "fresh", checkout)
    make(venvs, "old", checkout, days=31)
    make(venvs, "homeless", tmp_path / "gone")
    make(venvs, "broken", None)

    expected = {
        "broken": (True, "it was never finished"),
        "old": (True, "unused for 31 days"),
        "homeless": (True, "its checkout is gone"),
        "fresh": (False, "may be used again"),
    }
    assert reasons(dry_run=True) == expected
    assert len(environments()) == 4
    assert reasons() == expected
    assert [one.name for one in environments()] == ["fresh-3.12"]


def test_what_a_command_holds_stays(venvs: Path, tmp_path: Path) -> None:
    made = make(venvs, "held", tmp_path / "gone")
    with (made / "complete").open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert reasons() == {"held": (False, "a process uses it")}

    assert reasons()["held"][0]
    assert not made.exists()


def test_what_a_process_runs_in_without_a_lock_stays(venvs: Path, tmp_path: Path) -> None:
    made = make(venvs, "busy", tmp_path / "gone")
    (made / "python").symlink_to(sys.executable)
    with subprocess.Popen(
        [made / "python", "-c", "print(1, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout and process.stdout.readline()
        assert reasons() == {"busy": (False, "a process uses it")}
        process.communicate(b"\n")

    assert reasons()["busy"][0]


def test_the_one_that_we_run_in_stays(
    venvs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(venvs, "own", tmp_path / "gone", days=99)
    monkeypatch.setattr(sys, "prefix", str(made))

    assert reasons() == {"own": (False, "this command runs in it")}


def test_while_one_is_being_made_nothing_is_removed(venvs: Path) -> None:
    made = make(venvs, "half", None)
    with (venvs / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ImageError, match="making a Python environment") as refused:
            reasons()

    assert refused.value.hint
    assert made.is_dir()


def test_a_cache_that_cannot_be_written_is_told_of(venvs: Path) -> None:
    (venvs / "lock").mkdir()  # refused to root too

    with pytest.raises(ImageError, match="cannot write in") as refused:
        reasons()
    assert "TRAPLINE_CACHE" in refused.value.hint


def test_without_any_there_is_nothing_to_do(venvs: Path) -> None:
    venvs.rmdir()

    assert reasons() == {}
    assert environments() == []
    assert not venvs.exists()
