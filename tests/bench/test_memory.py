"""What a process has for itself, and what files take on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.bench.memory import allocated, private_dirty, processes_with
from harness.errors import MachineError

ROLLUP = """\
55d0c0a5f000-7ffd2d5fe000 ---p 00000000 00:00 0                          [rollup]
Rss:              123456 kB
Private_Clean:      2000 kB
Private_Dirty:     65000 kB
"""


def test_private_dirty_is_read_in_bytes() -> None:
    assert private_dirty(ROLLUP) == 65000 << 10


def test_a_rollup_without_it_is_refused() -> None:
    with pytest.raises(MachineError, match="no Private_Dirty"):
        private_dirty("Rss: 1 kB\n")


def test_processes_are_found_by_a_word_of_their_command_line(tmp_path: Path) -> None:
    for pid, line in {
        "10": b"qemu\0-qmp\0/run/a/qmp.sock",
        "11": b"qemu\0/run/b",
        "x": b"",
    }.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_bytes(line)
    (tmp_path / "12").mkdir()  # ended while it was looked at

    assert processes_with("/run/a", tmp_path) == [10]


def test_holes_take_nothing(tmp_path: Path) -> None:
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence/log").write_bytes(b"x" * 8192)
    with (tmp_path / "memory").open("wb") as file:
        os.ftruncate(file.fileno(), 1 << 30)
    (tmp_path / "link").symlink_to(tmp_path / "evidence/log")

    assert 8192 <= allocated(tmp_path) < 1 << 20
