"""What tests share, and how the worker that knows it tells the process that plans.

A group is what a conftest says by the hook ``pytest_trapline_shared``, from the test's own
fixtures. The planning process (xdist's controller) does not collect and is sent node ids only,
so each worker leaves its answers, in the order of its collection, in a file beside the run
before it reports that collection as finished. That is the one way on which nothing private
is touched: ``workeroutput`` arrives at the end, reports arrive with the test, and names put
into node ids are what broke xdist's own ``loadgroup``.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

NOTHING_TURN = 3
"""Turn of tests that share nothing, among those of `Shared`."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Something that many tests want to find there, and that costs time to make."""

    name: str
    """Tests that name the same share it."""
    seconds: float = 0.0
    """What making it costs, until a run has shown better."""
    turn: int = NOTHING_TURN
    """Lower comes first, within the group and in a run without workers."""
    lane: str = ""
    """Tests of one lane all run on one worker, whatever they share: of things there once."""


def tell(place: Path, shared: Sequence[Shared | None]) -> None:
    """Leave what the tests of a worker share at *place*.

    A directory that is gone means that nobody waits for it any more.
    """
    fresh = place.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        fresh.write_text(json.dumps([s and astuple(s) for s in shared]), encoding="utf-8")
        fresh.replace(place)


def told(place: Path, count: int) -> list[Shared | None]:
    """Return what lies at *place* for *count* tests; that nobody shares anything if unusable.

    Without it tests run all the same, only less well grouped.
    """
    try:
        rows = json.loads(place.read_text(encoding="utf-8"))
        shared = [row and Shared(*row) for row in rows]
    except (OSError, ValueError, TypeError):
        return [None] * count
    return shared if len(shared) == count else [None] * count


def seconds_or(value: object, default: float) -> float:
    """Return *value* if it can be a duration in seconds, else *default*."""
    if isinstance(value, int | float) and math.isfinite(value) and value >= 0:
        return float(value)
    return default
