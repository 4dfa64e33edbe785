"""Children of a matrix: what they print is shown and kept, and they end when we are told to."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.commands import matrix
from harness.commands.matrix_runner import child_runner
from harness.commands.places import Places
from harness.wait import wait_until


def python(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-c", *arguments]


class Terminal(io.StringIO):
    """One that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


TALK = "import sys; print('one'); print('two', file=sys.stderr); print('end', end=''); sys.exit(3)"


def test_lines_have_a_prefix_where_there_is_no_terminal(tmp_path: Path) -> None:
    out = io.StringIO()

    status = child_runner(python, out)([TALK], tmp_path, "[1/2]A")

    assert status == 3
    assert sorted(out.getvalue().splitlines()) == ["[1/2]A end", "[1/2]A one", "[1/2]A two"]


def test_on_a_terminal_they_are_as_they_are_and_the_log_is_too(tmp_path: Path) -> None:
    out = Terminal()

    child_runner(python, out)([TALK], tmp_path, "[1/2]A")

    assert "[1/2]" not in out.getvalue()
    log = (tmp_path / "output.txt").read_text()
    assert log.splitlines() == out.getvalue().splitlines()


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """SIGINT is heard: a script that started us in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_ends_the_child_in_good_order(tmp_path: Path) -> None:
    out = Terminal()
    child = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('tidy'), sys.exit(2)))\n"
        "print('up')\nsignal.pause()"
    )

    def interrupt() -> None:
        wait_until("the child is up", lambda: "up" in out.getvalue(), timeout=30)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        child_runner(python, out)([child], tmp_path, "A")
    thread.join()

    assert (tmp_path / "output.txt").read_text().splitlines() == ["up", "tidy"]


def test_the_command_prints_a_table_and_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "suites").mkdir()
    places = Places(tmp_path, tmp_path / "results", is_checkout=True)
    monkeypatch.setattr(Places, "find", classmethod(lambda _: places))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(matrix, "command_of", lambda _: python(["print('no run')"]))

    broken = CliRunner().invoke(app, ["matrix", "--qemu", "system"])
    shown = CliRunner().invoke(app, ["matrix", "--qemu", "system", "--show"])

    assert broken.exit_code == 1
    assert "no run came about (exit status 0)" in broken.stdout
    assert "[1/1]A no run" in broken.stderr
    assert shown.exit_code == 1
    assert "not run" in shown.stdout
    monkeypatch.setattr(matrix, "command_of", _interrupted)
    stopped = CliRunner().invoke(app, ["matrix", "--qemu", "system", "--times", "2"])
    assert stopped.exit_code == 130
    assert "go on with: trapline matrix --qemu=system --times=2" in stopped.stderr


def _interrupted(_: object) -> list[str]:
    raise KeyboardInterrupt
