"""The floor: what QEMU is told by hand, and what its sockets say."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest

from harness.bench.by_hand import HandRun, free_port, orders, read_until, started
from harness.errors import LaunchFailed, Unreachable
from harness.machine.command import MachineSpec
from harness.machine.saved_state import Method, SavedState


class Script:
    """A program that takes the place of QEMU."""

    label = "script"

    def __init__(self, text: str) -> None:
        self.argv_prefix = ("/bin/sh", "-c", text, "sh")
        self.env: dict[str, str] = {}


@pytest.mark.parametrize("method", Method)
def test_the_orders_are_the_capabilities_of_the_state_then_its_file(method: Method) -> None:
    text = orders(SavedState(Path("/states/1"), method)).decode()

    decoder, at, commands = json.JSONDecoder(), 0, []
    while at < len(text):
        command, at = decoder.raw_decode(text, at)
        commands.append(command)
    assert [one["execute"] for one in commands] == [
        "qmp_capabilities", "migrate-set-capabilities", "migrate-incoming",
    ]  # fmt: skip
    chosen = {one["capability"] for one in commands[1]["arguments"]["capabilities"]}
    assert chosen == {*method.capabilities, "events"}
    assert commands[2]["arguments"] == {"uri": "file:/states/1/devices"}


def test_a_socket_is_read_until_the_mark() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"booting\ntrapline: rea")
        theirs.sendall(b"dy 3.1\n")

        assert b"booting" in read_until(ours, b"trapline: ready", timeout=5)


def test_a_socket_that_ends_early_is_told_with_what_it_said() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(b"Kernel panic")

        with pytest.raises(Unreachable, match="'ready' did not come") as caught:
            read_until(ours, b"ready", timeout=5)
    assert caught.value.seen == "Kernel panic"


def test_a_program_that_ends_is_told_with_its_words(tmp_path: Path) -> None:
    with (
        started(MachineSpec("x"), Script("echo no such device; exit 1"), tmp_path) as run,
        pytest.raises(LaunchFailed) as caught,
    ):
        run.connect(run.sockets.qmp)
    assert "no such device" in caught.value.stderr


def test_nothing_runs_or_lies_around_after_an_interrupt(tmp_path: Path) -> None:
    seen: list[HandRun] = []
    with (
        pytest.raises(KeyboardInterrupt),
        started(MachineSpec("x"), Script("exec sleep 1000"), tmp_path) as run,
    ):
        seen.append(run)
        raise KeyboardInterrupt

    (run,) = seen
    assert isinstance(run.child, subprocess.Popen)
    assert run.child.poll() is not None
    assert not Path(run.sockets.directory).exists()


def test_a_free_port_can_be_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
