"""Machines made of a fake QEMU, and a check that nothing is left of them."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.machine.command import MachineSpec
from harness.machine.launch import Launch
from harness.machine.machine import Machine
from harness.machine.place import LocalPlace
from harness.machine.qmp import _Loop
from harness.wait import wait_until

FAKE_QEMU = (sys.executable, "-S", "-E", os.fspath(Path(__file__).with_name("fake_qemu.py")))

Start = Callable[..., Machine]


@dataclass(frozen=True)
class FakeQemu:
    """A QEMU that behaves as *how* says; see ``fake_qemu.py``."""

    how: str
    argv_prefix: Sequence[str]
    label: str = "fake"

    @property
    def env(self) -> Mapping[str, str]:
        return {"FAKE": self.how}


@pytest.fixture
def run_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The run-time directory of this test; with a short path, and empty at the end."""
    with tempfile.TemporaryDirectory(prefix="tl-") as place:
        monkeypatch.setenv("XDG_RUNTIME_DIR", place)
        yield Path(place)
        assert list(Path(place).iterdir()) == []


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    made = tmp_path / "evidence"
    made.mkdir()
    return made


@pytest.fixture
def start(run_time: Path, evidence: Path) -> Iterator[Start]:
    """Launch a machine of a fake QEMU; ended when the test ends."""
    running: list[Machine] = []

    def launch(how: str = "", *, argv: Sequence[str] = FAKE_QEMU, timeout: float = 10) -> Machine:
        wanted = Launch(LocalPlace(), FakeQemu(how, argv), evidence, timeout=timeout)
        running.append(Machine.launch(MachineSpec("fake"), wanted))
        return running[-1]

    yield launch
    for machine in running:
        machine.kill()


@pytest.fixture
def nothing_left(run_time: Path) -> Iterator[None]:
    """No child, file descriptor or thread more after the test than before it."""
    _Loop.get()  # lives as long as the process
    before = _possessions()
    yield
    # The loop thread closes its end of a connection a moment after the call that asked for it.
    wait_until(
        "nothing is left",
        lambda: _possessions() == before,
        timeout=3,
        last_seen=lambda: f"before: {before}\nnow: {_possessions()}",
    )


def _possessions() -> dict[str, list[str]]:
    descriptors = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:  # that of the listing itself
            continue
        descriptors.append(f"{entry.name} {target}")
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    threads = [thread.name for thread in threading.enumerate()]
    return {
        "descriptors": sorted(descriptors),
        "children": children,
        "threads": sorted(threads),
    }
