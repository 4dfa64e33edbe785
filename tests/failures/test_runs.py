"""Whole runs that are interrupted, killed, doubled, or lose a worker: nothing is left of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import paths
from harness.wait import wait_until

StartRun = Callable[..., Any]
SUITE = "intel_iommu/test_refusals.py"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_ends_with_its_summary_and_leaves_nothing(
    start_run: StartRun, run_time: Path, number: int
) -> None:
    run = start_run(SUITE)
    run.wait_for_qemu()

    os.killpg(run.process.pid, number)

    assert run.process.wait(60) in (2, 130), run.output
    assert run.living() == []
    assert list(run_time.iterdir()) == []
    assert "trapline" in run.summary


def test_a_killed_run_leaves_no_process_and_the_next_one_removes_its_sockets(
    start_run: StartRun, run_time: Path
) -> None:
    run = start_run(SUITE)
    run.wait_for_qemu()

    run.process.kill()
    run.process.wait(10)

    wait_until("every process of the run ends", lambda: not run.living(), timeout=10)
    assert list(run_time.iterdir()) != []
    paths.remove_runtime_dir(paths.runtime_dir())
    assert list(run_time.iterdir()) == []


def test_two_runs_at_once_do_not_disturb_each_other_and_leave_nothing(
    start_run: StartRun, run_time: Path
) -> None:
    words = (SUITE, "-k", "irqchip")

    runs = [start_run(*words), start_run(*words)]

    assert [(run.process.wait(150), run.output[-2000:])[0] for run in runs] == [0, 0], [
        run.output[-3000:] for run in runs
    ]
    assert [run.living() for run in runs] == [[], []]
    assert list(run_time.iterdir()) == []


def test_a_worker_that_is_killed_is_an_error_and_takes_its_children_along(
    start_run: StartRun, tmp_path: Path
) -> None:
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "test_crash.py").write_text(
        "import os\nfrom harness import process\n\n"
        "def test_dies():\n"
        "    process.start(['sleep', '1000'])\n"
        "    os.kill(os.getpid(), 9)\n\n"
        "def test_lives():\n"
        "    pass\n"
    )

    run = start_run(str(suite), "-n", "1")

    assert run.process.wait(60) == 1, run.output
    assert "1 pass, 0 fail, 1 error" in run.output
    wait_until("every process of the run ends", lambda: not run.living(), timeout=10)
