"""Who runs what next (pure: no processes, no clock).

What costs time to make is made on as few workers as pay for it: a worker stays with the tests
that share it until there are none, then takes the longest group that nobody has, then tests
that share nothing, and only then joins a group of others, if what is left of it is more than
making the shared thing again. Long tests come first, so that short ones fill the end.

A worker must know the test after the one it begins (fixtures are kept for it), and xdist cannot
take that one back. So each worker has two tests, never more, and behind a long one a short one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.spread.shared import NOTHING_TURN, Shared

LONG = 3.0
"""Seconds from which on a test is worth being begun early."""

_LEAST = 0.1
"""Seconds that making anything shared costs: what costs nothing need not be kept together."""
_WORTH = 1.5
"""How much more than making the shared thing again must be left, for a worker to join: the
guess may be off, and who makes it takes cores from those that are at it."""


@dataclass(frozen=True, slots=True)
class Work:
    """One test."""

    index: int
    """In the collection, which is the same on all workers."""
    file: str
    seconds: float
    is_known: bool = False
    """The seconds were measured, not guessed."""
    shared: Shared | None = None

    @property
    def group(self) -> str:
        """Tests to be kept together: they share something, or at least the file."""
        return self.shared.name if self.shared else f"file {self.file}"

    @property
    def turn(self) -> int:
        """When it comes in its group."""
        return self.shared.turn if self.shared else NOTHING_TURN

    @property
    def lane(self) -> str:
        """All tests of a lane run on one worker; '' for any worker."""
        return self.shared.lane if self.shared else ""


class Plan:
    """The tests nobody has yet, and what each worker had last.

    :param works: every test, by index.
    :param costs: seconds to make what a group shares; default: what the tests say.
    """

    def __init__(self, works: Sequence[Work], costs: Mapping[str, float] | None = None) -> None:
        self._works = tuple(works)
        known = costs or {}
        self._costs = {
            w.group: max(_LEAST, known.get(w.group, w.shared.seconds)) if w.shared else 0.0
            for w in works
        }
        self._pending = {work.index: work for work in works}
        self._last: dict[str, Work | None] = {}
        self._lanes: dict[str, str] = {}

    def __len__(self) -> int:
        """Return how many tests nobody has."""
        return len(self._pending)

    def join(self, worker: str) -> None:
        """Count with *worker*."""
        self._last[worker] = None

    def leave(self, worker: str) -> None:
        """Count without it: it got its last test, or died."""
        self._last.pop(worker, None)
        self._lanes = {lane: owner for lane, owner in self._lanes.items() if owner != worker}

    def give_back(self, indices: Iterable[int]) -> None:
        """Take back tests that did not run."""
        self._pending |= {index: self._works[index] for index in indices}

    def take(self, worker: str) -> int | None:
        """Return the next test for *worker*; None if it is not to get another one."""
        group = self._group_for(worker)
        if not group:
            return None
        work = self._test_of(group, worker)
        del self._pending[work.index]
        self._last[worker] = work
        if work.lane:
            self._lanes[work.lane] = worker
        return work.index

    def can_spare(self, worker: str, index: int, elsewhere: Iterable[int]) -> bool:
        """Say whether the others end before *worker* has done *index*, its only test.

        Then it needs no other, and none has to wait behind that one.

        :param elsewhere: tests that the others have.
        """
        work = self._works[index]
        others = [last for name, last in self._last.items() if name != worker]
        if not others or not work.is_known or worker in self._lanes.values():
            return False
        theirs = {last.group for last in others if last}
        missing = {w.group for w in self._pending.values()} - theirs
        load = sum(self._costs[group] for group in missing)
        load += sum(w.seconds for w in self._pending.values())
        load += sum(self._works[other].seconds for other in elsewhere)
        return load / len(others) <= work.seconds

    def _group_for(self, worker: str) -> list[Work]:
        """Return the tests of the group that *worker* goes on with, or none."""
        groups: dict[str, list[Work]] = defaultdict(list)
        for work in self._pending.values():
            if self._may(worker, work):
                groups[work.group].append(work)
        last = self._last[worker]
        here = last.group if last else ""
        if here in groups and self._costs[here]:
            return groups[here]
        if not groups:
            return []
        if len(self._last) == 1:
            return min(groups.values(), key=lambda tests: min((w.turn, w.index) for w in tests))

        held = [work.group for name, work in self._last.items() if work and name != worker]
        left = {name: sum(work.seconds for work in tests) for name, tests in groups.items()}
        costly = [name for name in groups if self._costs[name]]
        fresh = [name for name in costly if name not in held]
        loose = [name for name in groups if not self._costs[name]]
        if fresh:
            best = max(fresh, key=lambda name: self._costs[name] + left[name])
            longest = max((w for name in loose for w in groups[name]), key=_seconds, default=None)
            if longest and longest.seconds > self._costs[best] + left[best]:
                best = longest.group
        elif loose:
            best = max(loose, key=lambda name: (name == here, name not in held, left[name]))
        else:
            worth = [n for n in costly if _WORTH * self._costs[n] < left[n] / held.count(n)]
            best = max(worth, key=lambda name: left[name] - self._costs[name], default="")
        return groups.get(best, [])

    def _may(self, worker: str, work: Work) -> bool:
        if work.lane and self._lanes.get(work.lane, worker) != worker:
            return False
        # A test of a later turn ended what its group shares. And what fixtures of a module hold
        # goes only when the worker comes to another module: a test of an earlier turn in this
        # one may want just that. Both wait, or go to somebody else.
        last = self._last[worker]
        is_back = (
            last is not None
            and work.turn < last.turn
            and (work.file == last.file or work.group == last.group)
        )
        return not is_back or len(self._last) == 1

    def _test_of(self, group: Sequence[Work], worker: str) -> Work:
        turn = min(work.turn for work in group)
        tests = [work for work in group if work.turn == turn]
        later = max((work for work in group if work.turn > turn), key=_seconds, default=None)
        last = self._last[worker]
        others = [w for name, w in self._last.items() if w and name != worker]
        helpers = sum(w.group == group[0].group for w in others)
        before = sum(work.seconds for work in tests)
        if later and last and last.group == later.group and before <= later.seconds * helpers:
            return later  # the others end with what comes before it while this one is at it
        if last and last.seconds >= LONG:
            file = last.file
            return min(
                tests, key=lambda w: (w.seconds >= LONG, w.file != file, w.seconds, w.index)
            )
        if not last or all(work.file != last.file for work in tests):
            # Go where nobody is: a file may have fixtures of its own.
            busy = {work.file for work in others}
            by_file: dict[str, list[Work]] = defaultdict(list)
            for work in tests:
                by_file[work.file].append(work)
            tests = max(by_file.values(), key=lambda found: (
                found[0].file not in busy,
                max(_if_long(work) for work in found),
                sum(work.seconds for work in found),
            ))  # fmt: skip
        else:
            tests = [work for work in tests if work.file == last.file]
        return min(tests, key=lambda work: (-_if_long(work), work.index))


def _seconds(work: Work) -> float:
    return work.seconds


def _if_long(work: Work) -> float:
    return work.seconds if work.seconds >= LONG else 0.0
