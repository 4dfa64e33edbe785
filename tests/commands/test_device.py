"""``trapline device serve``: the file's device, lines for a person, an end."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.commands.device import load_device, serve_file
from harness.device.client import Client
from harness.device.device import Device
from harness.errors import ConfigError
from harness.wait import wait_until

ONE = """
from harness.device.device import Device
from harness.device.spec import BarSpec
from harness.model.pci import BarKind, PciId

class Mine(Device):
    id = PciId(0x1234, 0x1111)
    bars = (BarSpec(0, BarKind.MEM32, 0x1000),)

    def read(self, bar, offset, width):
        if offset == 0x80:
            raise ValueError("not this one")
        return super().read(bar, offset, width)
"""
TWO = ONE + "\nclass Other(Mine):\n    pass\n"


def written(directory: Path, text: str) -> Path:
    file = directory / "mine.py"
    file.write_text(text)
    return file


def test_the_device_of_a_file_is_loaded(tmp_path: Path) -> None:
    found = load_device(written(tmp_path, ONE))

    assert issubclass(found, Device)
    assert found.__name__ == "Mine"


def test_one_of_several_is_chosen_by_its_name(tmp_path: Path) -> None:
    assert load_device(written(tmp_path, TWO), "Other").__name__ == "Other"


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        (TWO, "", "2 devices"),
        (ONE, "Yours", "no device Yours"),
        ("x = 1", "", "0 devices"),
        ("import nothing_of_that_name", "", "ModuleNotFoundError"),
        ("def", "", "SyntaxError"),
    ],
)
def test_a_file_without_the_device_is_told(
    tmp_path: Path, text: str, name: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        load_device(written(tmp_path, text), name)


def test_a_file_may_have_dataclasses(tmp_path: Path) -> None:
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    text += ONE + "\n@dataclass\nclass Queue:\n    head: int = 0\n"

    assert load_device(written(tmp_path, text)).__name__ == "Mine"


@pytest.mark.parametrize(
    ("init", "says"),
    [
        ("def __init__(self): raise RuntimeError('not today')", "RuntimeError: not today"),
        ("def __init__(self, size): super().__init__()", "TypeError: .*'size'"),
    ],
)
def test_a_device_that_cannot_be_made_is_told(tmp_path: Path, init: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"no Mine can be made: {says}"):
        list(serve_file(written(tmp_path, f"{ONE}\n    {init}\n")))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a Python file"):
        load_device(tmp_path / "missing.py")


def test_what_was_asked_of_it_is_told_at_the_end(tmp_path: Path) -> None:
    socket = tmp_path / "socket"
    lines: list[str] = []
    stop = threading.Event()

    def serve() -> None:
        for line in serve_file(written(tmp_path, ONE), socket=socket, once=True, stop=stop):
            lines.append(line)

    serving = threading.Thread(target=serve)
    serving.start()
    wait_until("it listens", lambda: len(lines) >= 2, timeout=10)
    with Client(socket) as client:
        client.read(0, 0x10, 4)
        client.read(0, 0x10, 4)
        client.read(7, 0, 4)
        client.reset()
        client.exchange(99)
        client.exchange(9, (0x80).to_bytes(8, "little") + bytes(4) + b"\4\0\0\0")
        wait_until("the client is seen", lambda: len(lines) >= 3, timeout=10)
    serving.join(10)

    assert lines[0] == f"Mine 1234:1111 on {socket}"
    assert str(socket) in lines[1]
    assert lines[2:] == [
        "client 1 has connected",
        "client 1 has gone",
        "4 accesses in 1 connections",
        "  BAR 0: 3",
        "    read      0x0010 4       2",
        "    read      0x0080 4       1",
        "  configuration space: 1",
        "  resets: 1 by message",
        "  refused: command 99: no such command to a server (EINVAL)",
        "  refused: REGION_READ: the device failed: not this one (EIO)",
        "  failed: ValueError: not this one",
    ]


def test_the_command_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["device", "serve", str(written(tmp_path, "x = 1"))])

    assert result.exit_code != 0
    assert isinstance(result.exception, ConfigError)
