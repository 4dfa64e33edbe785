"""Queues of a host that outlives us; the host is a script here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.ap.matrix_device import MATRIX
from harness.ap.plot import PLOT_UUIDS
from harness.errors import MissingDevice
from harness.guest.transport import Command, Completed, Conversation, command_text
from harness.lab import ap_plot
from harness.lab.ap_plot import open_plot

QUEUES = "05.0004 unassigned\n05.0047 unassigned\n06.0004 in use\n06.0047 unassigned\n"


class Probe:
    """The static helper: there is no file and no directory."""

    def send(self, line: str) -> None:
        pass

    def receive(self, *, timeout: float = 30) -> str:
        return "ENOENT"

    def close(self) -> None:
        pass


class Z:
    """Answers commands by a word in them."""

    name = "z"

    def __init__(self, machine: str = "s390x") -> None:
        self.answers = {"uname -m": machine, "boot_id": "b", "drivers/vfio_ap": QUEUES}
        self.commands: list[str] = []
        self.writes: list[tuple[str, bytes]] = []
        self.closed = False

    def run(
        self, command: Command, *, timeout: float = 60, stdin: bytes = b"", check: bool = True
    ) -> Completed:
        text = command_text(command)
        self.commands.append(text)
        said = next((answer for word, answer in self.answers.items() if word in text), "")
        missing = text.startswith("test -e") and MATRIX in text
        return Completed(text, 1 if missing else 0, said, "")

    def open(self, command: Command) -> Conversation:
        self.commands.append(command_text(command))
        return Probe()

    def write(self, path: str, content: bytes) -> None:
        self.writes.append((path, content))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "ap-probe"
    path.write_bytes(b"s390x")
    return path


def names(commands: Sequence[str], word: str) -> list[str]:
    return [command for command in commands if word in command]


def test_what_nobody_uses_is_the_plot(helper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    z = Z()
    monkeypatch.setattr(ap_plot, "connect", lambda _: z)

    with open_plot("ssh://root@z", helper=helper, run="run") as plot:
        assert (plot.adapters, plot.domains) in [((5,), (4, 0x47)), ((5, 6), (0x47,))]

    assert z.closed
    assert names(z.commands, "ap-probe sysfs")


def test_no_mask_is_written_while_it_is_there(
    helper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    z = Z()
    monkeypatch.setattr(ap_plot, "connect", lambda _: z)

    with open_plot("ssh://root@z", helper=helper, run="run"):
        assert not z.writes


def test_another_machine_is_refused(helper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    z = Z("x86_64")
    monkeypatch.setattr(ap_plot, "connect", lambda _: z)

    with (
        pytest.raises(MissingDevice, match="x86_64"),
        open_plot("local", helper=helper, run="run"),
    ):
        pass

    assert z.closed
    assert len(PLOT_UUIDS) == 4
