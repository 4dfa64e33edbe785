"""What tests and shared things took in earlier runs.

A guess for the planning of the next one, nothing more: what is not there, or cannot be, is
replaced by a default, and a wrong number makes a run slower, never wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.spread.plan import Work
from harness.spread.shared import Shared, seconds_or

NAME = ".durations.json"
"""Beside the runs; taking it away costs the next run some planning."""
UNKNOWN = 1.0
"""Seconds of a test that never ran, in a file of which no test ever did."""
_MOST = 20_000


@dataclass(slots=True)
class Timing:
    """What one test took, seconds."""

    nodeid: str
    worker: str = ""
    set_up: float = 0.0
    rest: float = 0.0
    is_whole: bool = True
    """Nothing went wrong: a test that was cut short tells nothing."""


@dataclass(frozen=True, slots=True)
class Durations:
    """Seconds of tests, by node id, and of shared things, by name."""

    tests: Mapping[str, float] = field(default_factory=dict)
    shared: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path) -> Durations:
        """Return what is remembered in *directory*; nothing if it cannot be read."""
        try:
            found = json.loads((directory / NAME).read_text(encoding="utf-8"))
            return cls(_numbers(found["tests"]), _numbers(found["shared"]))
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return cls()

    def write(self, directory: Path) -> None:
        """Remember it in *directory*, in one move: two runs may end at once."""
        fresh = directory / f"{NAME}.{os.getpid()}"
        with contextlib.suppress(OSError):  # a full disk spoils no verdict
            fresh.write_text(
                json.dumps({"tests": dict(self.tests), "shared": dict(self.shared)}, indent=0),
                encoding="utf-8",
            )
            fresh.replace(directory / NAME)

    def learned(self, timings: Iterable[Timing], shared: Mapping[str, Shared | None]) -> Durations:
        """Return it with what a run has shown.

        Who comes first to a shared thing on a worker makes it: its set-up is the thing's, not
        the test's. The first test of all on a worker makes the host too; that tells nothing.

        :param timings: in the order in which the tests began.
        """
        tests, things = dict(self.tests), dict(self.shared)
        before: dict[str, str | None] = {}
        for timing in timings:
            thing = shared.get(timing.nodeid)
            name = thing.name if thing else None
            is_first = timing.worker not in before
            is_maker = is_first or (thing is not None and before[timing.worker] != name)
            before[timing.worker] = name or before.get(timing.worker)
            if not timing.is_whole:
                continue
            if name and is_maker and not is_first:
                things[name] = (things.get(name, timing.set_up) + timing.set_up) / 2
            tests.pop(timing.nodeid, None)  # what was seen last stands last
            tests[timing.nodeid] = round(timing.rest + (0.0 if is_maker else timing.set_up), 3)
        kept = list(tests.items())[-_MOST:]
        return Durations(dict(kept), {name: round(cost, 3) for name, cost in things.items()})

    def works(self, nodeids: Sequence[str], shared: Sequence[Shared | None]) -> list[Work]:
        """Return the tests of a collection with what each will probably take.

        A new one is taken for a usual one of its file.
        """
        in_file: dict[str, list[float]] = defaultdict(list)
        for nodeid, seconds in self.tests.items():
            in_file[_file(nodeid)].append(seconds)
        usual = {file: statistics.median(found) for file, found in in_file.items()}
        return [
            Work(
                index,
                _file(nodeid),
                self.tests.get(nodeid, usual.get(_file(nodeid), UNKNOWN)),
                nodeid in self.tests,
                thing,
            )
            for index, (nodeid, thing) in enumerate(zip(nodeids, shared, strict=True))
        ]


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def _numbers(found: Mapping[str, object]) -> dict[str, float]:
    checked = {str(name): seconds_or(value, -1.0) for name, value in found.items()}
    return {name: value for name, value in checked.items() if value >= 0}
