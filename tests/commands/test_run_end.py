"""How a run ends that somebody interrupts, or that has no space left."""

from __future__ import annotations

import errno
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.cli import EXIT_USAGE
from harness.commands.places import Places
from harness.commands.run import RunRequest, run_suites
from harness.errors import ConfigError
from harness.report import space
from harness.wait import wait_until

SUITE = """
import pathlib, threading
import pytest

@pytest.fixture(scope="module", autouse=True)
def machine():
    yield
    pathlib.Path("tidy").touch()

def test_quick(): pass

def test_long():
    pathlib.Path("up").touch()
    threading.Event().wait(60)

def test_after(): pass
"""
FINISHING = """
import os, signal, sys
import pytest

def pytest_unconfigure(config):
    os.kill(os.getpid(), signal.SIGTERM)
"""
FULL = """
import errno

def pytest_runtest_logreport(report):
    if "quick" in report.nodeid and report.when == "teardown":
        raise OSError(errno.ENOSPC, "No space left on device")
"""
RUN = """
from pathlib import Path
from harness import cli
from harness.commands.places import Places
here = Path.cwd()
places = Places(here, here / "results", is_checkout=False)
Places.find = classmethod(lambda _: places)
cli.main()
"""


@pytest.fixture
def area(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    area = tmp_path / "suites/area"
    area.mkdir(parents=True)
    (area / "test_it.py").write_text(SUITE)
    places = Places(tmp_path, tmp_path / "results", is_checkout=False)
    monkeypatch.setattr(Places, "find", classmethod(lambda _: places))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 40))
    return area


def begin(
    area: Path,
    workers: int = 0,
    *,
    before: Callable[[], object] | None = None,
    out: int = subprocess.PIPE,
) -> subprocess.Popen[str]:
    """Start a run in a process group of its own, and wait for its long test."""

    def prepare() -> None:
        # A script that started us in the background has it ignored.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if before is not None:
            before()

    child = subprocess.Popen(
        [sys.executable, "-c", RUN, "run", "area", f"-n{workers}"],
        text=True,
        start_new_session=True,
        preexec_fn=prepare,
        stdout=out,
        stderr=subprocess.STDOUT,
    )
    wait_until("the long test runs", (area.parent.parent / "up").exists, timeout=60)
    return child


@pytest.mark.parametrize(
    ("number", "workers"),
    [(signal.SIGHUP, 0), (signal.SIGHUP, 2), (signal.SIGTERM, 2), (signal.SIGINT, 0)],
)
def test_a_signal_to_the_group_ends_a_run_in_good_order(
    area: Path, number: int, workers: int
) -> None:
    child = begin(area, workers)
    os.killpg(child.pid, number)
    said, _ = child.communicate(timeout=60)

    assert child.returncode == pytest.ExitCode.INTERRUPTED, said
    assert "interrupted, " in said
    assert "of 3 tests not run; " in said
    assert "interrupted, " in Path("results/latest/summary.txt").read_text()
    assert json.loads(Path("results/latest/run.json").read_text())["interrupted"] is True
    assert Path("tidy").exists()


def test_a_lost_terminal_ends_a_run_in_good_order(area: Path) -> None:
    ours, theirs = pty.openpty()
    child = begin(area, out=theirs)
    os.close(theirs)
    os.close(ours)
    os.killpg(child.pid, signal.SIGHUP)
    os.killpg(child.pid, signal.SIGHUP)  # the shell sends it too

    assert child.wait(timeout=60) == pytest.ExitCode.INTERRUPTED
    assert "interrupted, 2 of 3 tests not run" in Path("results/latest/summary.txt").read_text()
    assert Path("tidy").exists()


def test_a_hang_up_that_nohup_ignores_stays_ignored(area: Path) -> None:
    child = begin(area, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    os.killpg(child.pid, signal.SIGHUP)

    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.5)
    os.killpg(child.pid, signal.SIGTERM)
    child.communicate(timeout=60)


@pytest.mark.usefixtures("restored_signals")
def test_who_interrupts_the_very_end_hears_what_was_run_and_where(
    area: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (area / "conftest.py").write_text(FINISHING)
    outcome = run_suites(RunRequest(selection=("area",), keyword="quick"))

    assert outcome.exit_status == pytest.ExitCode.INTERRUPTED
    assert outcome.directory is not None
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith("1 pass, 0 fail, 0 error, 0 skip; interrupted, 0 of 1 tests not run")


@pytest.fixture
def restored_signals() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_full_file_system_ends_a_run_with_one_sentence(area: Path) -> None:
    (area / "conftest.py").write_text(FULL)
    ended = subprocess.run(
        [sys.executable, "-c", RUN, "run", "area"], capture_output=True, text=True, check=False
    )

    assert ended.returncode == EXIT_USAGE
    assert "PASS" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
    assert "INTERNALERROR" not in ended.stdout + ended.stderr
    first, last = ended.stderr.splitlines()[-2:]
    assert first.startswith(f"trapline: no space left in {Path.cwd()}/results/2")
    assert "make room" in last


def test_no_run_begins_where_it_has_no_room(
    area: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=9 << 20))
    with pytest.raises(ConfigError, match=r"no space left in .*: 9 MiB free, at least 64"):
        run_suites(RunRequest(selection=("area",)))

    assert not list(Path("results").glob("2*"))


def test_little_room_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=space.FLOOR))

    assert "64 MiB free" in space.look(tmp_path / "not/there", space.PART)
    assert space.look(tmp_path, space.FLOOR) == ""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_used_up_quota_is_a_full_file_system(number: int) -> None:
    assert space.is_full(OSError(number, "used up"))
    assert not space.is_full(OSError(errno.EIO, "broken"))
    assert not space.is_full(RuntimeError())
