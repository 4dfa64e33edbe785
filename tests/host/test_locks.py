"""Locks on IOMMU groups: one run at a time, and the loser learns who has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import DeviceBusy
from harness.host.locks import HostLocks, host_slug

HOLD = """
import sys
from pathlib import Path
from harness.host.locks import HostLocks
locks = HostLocks(Path(sys.argv[1]), run="/results/one")
locks.take("IOMMU group 5", what="0000:01:00.0")
print("held", flush=True)
sys.stdin.read()
"""


def test_group_is_held_once(tmp_path: Path) -> None:
    one, two = HostLocks(tmp_path, run="/one"), HostLocks(tmp_path, run="/two")
    one.take("IOMMU group 5", what="0000:01:00.0")
    one.take("IOMMU group 5", what="0000:01:00.1")

    with pytest.raises(DeviceBusy, match=r"0000:01:00\.0 \(IOMMU group 5\)") as busy:
        two.take("IOMMU group 5", what="0000:01:00.0")

    assert busy.value.seen == f"process {os.getpid()}, evidence in /one"
    two.take("IOMMU group 6", what="0000:02:00.0")
    assert (one.held, two.held) == (("IOMMU group 5",), ("IOMMU group 6",))


def test_released_group_is_free(tmp_path: Path) -> None:
    one, two = HostLocks(tmp_path, run="/one"), HostLocks(tmp_path, run="/two")
    one.take("IOMMU group 5", what="0000:01:00.0")

    one.release()
    two.take("IOMMU group 5", what="0000:01:00.0")

    assert one.held == ()
    holder = two.holder("IOMMU group 5")
    assert holder is not None and holder.run == "/two"


def test_killed_run_holds_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        ours = HostLocks(tmp_path, run="/two")
        with pytest.raises(DeviceBusy) as busy:
            ours.take("IOMMU group 5", what="0000:01:00.0")
        assert busy.value.seen == f"process {other.pid}, evidence in /results/one"
        other.kill()
        other.wait()

        ours.take("IOMMU group 5", what="0000:01:00.0")

        assert ours.held == ("IOMMU group 5",)


def test_hosts_have_locks_of_their_own(state: Path) -> None:
    one = HostLocks.of_host("ssh://root@a:22", run="/one")
    two = HostLocks.of_host("ssh://root@b:22", run="/two")
    one.take("IOMMU group 5", what="0000:01:00.0")
    two.take("IOMMU group 5", what="0000:01:00.0")

    assert len(list((state / "locks").iterdir())) == 2


def test_host_name_makes_a_file_name() -> None:
    assert host_slug("ssh://root@lab-1.example:22") == "ssh_root@lab-1.example_22"
    assert "/" not in host_slug("ssh://root@[::1]:22/../x")
