"""Runs of made-up suites, each in a process of its own, as a user would start them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import process
from harness.bench.laboratory import Laboratory
from harness.errors import MachineError

CONFTEST = """\
from suites.conftest import *
"""
CLOCK = """\
import os
import time


def pytest_runtest_logstart(nodeid, location):
    if "PYTEST_XDIST_WORKER" not in os.environ:
        with open({clock!r}, "a") as file:
            print(time.monotonic(), file=file)
"""
_LONGEST = 1800.0


@dataclass(frozen=True, slots=True)
class MadeRun:
    """How a run went."""

    seconds: float
    """From the start of the process to its end."""
    began: tuple[float, ...]
    """When each test began, in order, on the monotonic clock; not told by workers."""

    @property
    def each(self) -> float:
        """Seconds from one test to the next, without the first one, which makes what is shared.

        :raise ValueError: there were not three tests.
        """
        if len(self.began) < 3:
            raise ValueError("three tests at least tell what one costs")
        return (self.began[-1] - self.began[1]) / (len(self.began) - 2)


def run_made(
    lab: Laboratory,
    place: Path,
    tests: str,
    *,
    workers: int | None = None,
    is_bare: bool = False,
    expected: int,
) -> MadeRun:
    """Run the text *tests* as ``test_made.py``.

    :param workers: value of ``-n``; None for the option not given.
    :param is_bare: pytest alone, without trapline's plugin and fixtures.
    :param expected: how many tests must pass.
    :raise MachineError: they did not all.
    """
    suite, clock = place / "suite", place / "clock"
    suite.mkdir()
    (suite / "conftest.py").write_text(
        CLOCK.format(clock=os.fspath(clock)) + ("" if is_bare else CONFTEST)
    )
    (suite / "test_made.py").write_text(tests)
    words = arguments(suite, place / "results", lab.parts.settings.options(), workers, is_bare)
    began = time.monotonic()
    log = place / "pytest.log"
    status, said = ended(words, log, cwd=place)
    took = time.monotonic() - began
    if status != 0 or f"{expected} passed" not in said:
        raise MachineError(
            f"a made-up run of {expected} tests ended with {status}",
            seen=said[-2000:],
            evidence=log,
        )
    moments = clock.read_text().split() if clock.exists() else []
    return MadeRun(took, tuple(float(word) for word in moments))


def ended(words: Sequence[str], log: Path, *, cwd: Path) -> tuple[int, str]:
    """Run *words* to their end; return the exit status, -1 if that never came, and the output."""
    with log.open("wb") as output:
        child = process.start(words, stdout=output, stderr=subprocess.STDOUT, cwd=cwd)
        try:
            status = child.wait(_LONGEST)
        except subprocess.TimeoutExpired:
            status = -1
        finally:
            # SIGTERM first: it ends its own machines and collects what they said.
            process.kill(child, grace=10)
    return status, log.read_text(errors="replace")


def arguments(
    suite: Path, results: Path, settings: list[str], workers: int | None, is_bare: bool
) -> list[str]:
    """Return the words that start pytest on *suite*. Pure."""
    # fmt: off
    return [
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "ignore",
        "--config-file=/dev/null", f"--rootdir={suite}", "--import-mode=importlib",
        *(["-p", "no:harness.plugin"] if is_bare else [f"--results={results}", *settings]),
        *(["-n", str(workers)] if workers is not None else []),
        os.fspath(suite),
    ]
    # fmt: on
