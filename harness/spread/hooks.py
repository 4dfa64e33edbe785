"""The hooks around the plan: of the process that plans, and of those that collect.

All are public, of pytest and of pytest-xdist; without xdist its own are never called.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.spread.memory import Durations, Timing
from harness.spread.plan import Plan
from harness.spread.scheduler import Node, Scheduler
from harness.spread.shared import Shared, tell, told

IS_OURS = pytest.StashKey[bool]()
"""Set to True where nobody has told xdist how to spread (``--dist``, ``-d``)."""
IN_VAIN = 3
"""Set-ups that fail one after another on a worker until it is not trusted any more."""
_SHARED = pytest.StashKey[Mapping[str, Shared | None]]()
_INPUT = "trapline_shared"


class Collecting:
    """Hooks for wherever tests are collected: asks what they share."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Ask; a worker tells before xdist says that it has collected."""
        config, items = session.config, session.items
        shared: list[Shared | None] = [
            item.ihook.pytest_trapline_shared(item=item) for item in items
        ]
        config.stash[_SHARED] = dict(zip([item.nodeid for item in items], shared, strict=True))
        worker: Mapping[str, Any] = getattr(config, "workerinput", {})
        if place := worker.get(_INPUT):
            tell(Path(place), shared)


class Spreading:
    """Hooks for the process that the user sees.

    :param run: directory of the run; what is remembered lies beside it.
    """

    def __init__(self, config: pytest.Config, run: Path) -> None:
        self._config = config
        self._memory = run.parent
        self._place = run / ".shared"
        self._timings: dict[str, Timing] = {}
        self._in_vain: dict[str, int] = {}
        self._expected = 0
        self._scheduler: Scheduler | None = None

    def worker_of(self, nodeid: str) -> str:
        """Return the worker that has a test, '' if there are none or xdist spreads itself."""
        return self._scheduler.worker_of(nodeid) if self._scheduler else ""

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_setupnodes(self, specs: Sequence[object]) -> None:
        """Learn how many workers there will be."""
        self._expected = len(specs)
        self._place.mkdir(exist_ok=True)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Node) -> None:
        """Tell a worker where to say what its tests share."""
        node.workerinput[_INPUT] = os.fspath(self._place / f"{node.gateway.id}.json")

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config) -> Scheduler | None:
        """Spread by our plan, unless the user told xdist how to."""
        if config.stash.get(IS_OURS, False):
            self._scheduler = Scheduler(config, self._expected, self._plan)
        return self._scheduler

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, node: Node, ids: Sequence[str]) -> None:
        """Hear what tests share, from the first worker that knows: all collect the same."""
        if _SHARED not in self._config.stash:
            shared = told(self._place / f"{node.gateway.id}.json", len(ids))
            self._config.stash[_SHARED] = dict(zip(ids, shared, strict=True))

    def _plan(self, nodeids: Sequence[str]) -> Plan:
        shared = self._config.stash[_SHARED]
        durations = Durations.read(self._memory)
        works = durations.works(nodeids, [shared.get(nodeid) for nodeid in nodeids])
        return Plan(works, durations.shared)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what a test took, and whether its worker can make at all what tests need."""
        if report.when not in ("setup", "call", "teardown"):
            return
        worker = report.__dict__.get("worker_id", "")
        timing = self._timings.setdefault(report.nodeid, Timing(report.nodeid, worker))
        timing.is_whole &= not report.failed
        if report.when == "setup":
            timing.set_up = report.duration
            self._in_vain[worker] = self._in_vain.get(worker, 0) + 1 if report.failed else 0
            if self._scheduler and self._in_vain[worker] == IN_VAIN:
                self._scheduler.distrust(worker)
        elif not isinstance(report, pytest.SubtestReport):  # its time is the test's too
            timing.rest += report.duration

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Remember what tests took."""
        shutil.rmtree(self._place, ignore_errors=True)
        if self._timings:
            shared = self._config.stash.get(_SHARED, {})
            durations = Durations.read(self._memory)
            durations.learned(self._timings.values(), shared).write(self._memory)
