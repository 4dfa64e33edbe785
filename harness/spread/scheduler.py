"""The plan as xdist wants it: a scheduler (``xdist.scheduler.protocol.Scheduling``)."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import pytest

from harness.spread.plan import Plan

_WANTED = 2
"""Tests a worker has: it begins one when it knows the next, or that there is none."""


class Gateway(Protocol):
    """The way to a worker (``execnet.Gateway``)."""

    id: str
    """Its name, ``gw0``."""


class Node(Protocol):
    """What we use of ``xdist.workermanage.WorkerController``, which has no types."""

    gateway: Gateway
    workerinput: dict[str, Any]

    @property
    def shutting_down(self) -> bool:
        """It was told that there is no more, or is down."""

    def send_runtest_some(self, indices: Sequence[int]) -> None:
        """Add tests to those it has."""

    def shutdown(self) -> None:
        """Tell it that there is no more."""


class Scheduler:
    """Hands tests to workers two at a time, as a `Plan` says.

    There is nothing to steal: what a worker has is what it runs and what it must know next.

    :param expected: how many workers collect at the beginning.
    :param make_plan: called once, with the node ids that all have collected.
    """

    def __init__(
        self,
        config: pytest.Config,
        expected: int,
        make_plan: Callable[[Sequence[str]], Plan],
    ) -> None:
        self.config = config
        self._expected = expected
        self._make_plan = make_plan
        self._plan: Plan | None = None
        self._nodeids: Sequence[str] = ()
        self._collected: dict[Node, Sequence[str]] = {}
        self._has: dict[Node, list[int]] = {}
        self._where: dict[str, str] = {}
        self._distrusted: set[str] = set()

    def worker_of(self, nodeid: str) -> str:
        """Return the name of the worker that got a test last, '' if none has."""
        return self._where.get(nodeid, "")

    def distrust(self, worker: str) -> None:
        """Give no more to *worker* while there are others.

        One whose host is broken fails each test at once, and so would soon have had them all.
        """
        self._distrusted.add(worker)

    @property
    def nodes(self) -> list[Node]:
        """Workers that are up."""
        return list(self._has)

    @property
    def collection_is_completed(self) -> bool:
        """Every worker of the beginning has collected."""
        return len(self._collected) >= self._expected

    @property
    def tests_finished(self) -> bool:
        """No worker needs to be told more than that there is no more."""
        if not self.collection_is_completed or self._plan:
            return False
        return all(len(has) < _WANTED for has in self._has.values())

    @property
    def has_pending(self) -> bool:
        """Tests are waiting or running."""
        return bool(self._plan) or any(self._has.values())

    def add_node(self, node: Node) -> None:
        """Hear that a worker is up; it collects now."""
        self._has[node] = []

    def add_node_collection(self, node: Node, collection: Sequence[str]) -> None:
        """Hear what a worker has collected: one of the first, or one that replaces another."""
        if self._plan is not None:
            if list(collection) != list(self._nodeids):
                self._complain(node, collection)
                node.shutdown()
                return
            self._plan.join(node.gateway.id)
        self._collected[node] = collection

    def schedule(self) -> None:
        """Begin, or give work to a worker that came later."""
        if self._plan is None and not self._begin():
            return
        self._hand_out()

    def _begin(self) -> bool:
        (_, self._nodeids), *others = self._collected.items()
        different = [node for node, ids in others if list(ids) != list(self._nodeids)]
        for node in different:
            self._complain(node, self._collected[node])
        if different or not self._nodeids:
            return False
        self._plan = self._make_plan(self._nodeids)
        for node in self._has:
            self._plan.join(node.gateway.id)
        return True

    def mark_test_complete(self, node: Node, item_index: int, duration: float = 0) -> None:
        """Hear that a test has ended."""
        self._has[node].remove(item_index)
        self._hand_out()

    def mark_test_pending(self, item: str) -> None:
        """Refuse to run a test again: what ended a worker is told, not tried again."""
        raise NotImplementedError

    def remove_pending_tests_from_node(self, node: Node, indices: Sequence[int]) -> None:
        """Hear that a worker gave tests back: never, none is asked to."""

    def remove_node(self, node: Node) -> str | None:
        """Hear that a worker is gone; return the test it died of, if it did.

        :raise KeyError: it never was up.
        """
        has = self._has.pop(node)
        if self._plan is None:
            return None
        self._plan.leave(node.gateway.id)
        if not has:
            return None
        crashed, *others = has
        self._plan.give_back(others)
        self._hand_out()
        return self._nodeids[crashed]

    def _hand_out(self) -> None:
        up = [n for n in self._has if not n.shutting_down and n in self._collected]
        trusted = [n for n in up if n.gateway.id not in self._distrusted] or up
        for wanted in range(1, _WANTED + 1):  # nobody gets a second before all have a first
            for node in trusted:
                if len(self._has[node]) < wanted:
                    self._give(node)
        for node in up:
            if self._plan is not None and all(n is node or n.shutting_down for n in up):
                # The others have ended: who is left does what there is, worth it or not.
                for _ in range(_WANTED - len(self._has[node])):
                    self._give(node)
            if len(self._has[node]) < _WANTED:
                # It runs what it has, then ends: its host makes place for the others.
                if self._plan is not None:
                    self._plan.leave(node.gateway.id)
                node.shutdown()

    def _give(self, node: Node) -> None:
        plan, has, worker = self._plan, self._has[node], node.gateway.id
        if plan is None:
            return
        if has:
            others = [
                index for other, its in self._has.items() if other is not node for index in its
            ]
            if plan.can_spare(worker, has[-1], others):
                return
        index = plan.take(worker)
        if index is None:
            return
        has.append(index)
        self._where[self._nodeids[index]] = worker
        node.send_runtest_some([index])

    def _complain(self, node: Node, collection: Sequence[str]) -> None:
        """Report, as a failed collection, how that of *node* differs."""
        first = next(iter(self._collected)).gateway.id
        lines = difflib.unified_diff(
            list(next(iter(self._collected.values()))),
            list(collection),
            first,
            node.gateway.id,
            lineterm="",
        )
        said = "\n".join(["the workers collected different tests:", *lines])
        self.config.hook.pytest_collectreport(
            report=pytest.CollectReport(node.gateway.id, "failed", said, [])
        )
