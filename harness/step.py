"""Steps: what is being done now, for how long, inside what.

``with step("bind %s to vfio-pci", bdf):`` logs one line, times itself, tells the progress
line, and leaves a record for the timeline.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One finished (or just begun, ``seconds`` None) step."""

    text: str
    depth: int
    began: float
    """Seconds since the epoch."""
    seconds: float | None = None
    failed: str = ""
    """Name of the exception that ended it, if one did."""
    thread: str = ""
    number: int = 0
    """Of the step in this process, from 1; the same when it begins and when it ends."""
    parent: int = 0
    """Number of the step of the same thread that it is inside of; 0: none."""

    @property
    def ended(self) -> float | None:
        """Seconds since the epoch, None while it lasts."""
        return None if self.seconds is None else self.began + self.seconds


Listener = Callable[[StepRecord], None]

_local = threading.local()
_listeners: list[Listener] = []
_numbers = itertools.count(1)


def listen(listener: Listener) -> Callable[[], None]:
    """Call *listener* at each begin and end of a step; returns the way to stop that."""
    _listeners.append(listener)

    def stop() -> None:
        with contextlib.suppress(ValueError):
            _listeners.remove(listener)

    return stop


@contextlib.contextmanager
def recorded() -> Iterator[list[StepRecord]]:
    """Collect the steps of every thread that end while inside."""
    ended: list[StepRecord] = []
    stop = listen(lambda record: ended.append(record) if record.seconds is not None else None)
    try:
        yield ended
    finally:
        stop()


@contextlib.contextmanager
def step(text: str, *arguments: object) -> Iterator[None]:
    """Name and time what happens inside; %-style *arguments* as in logging."""
    depth: int = getattr(_local, "depth", 0)
    parent: int = getattr(_local, "number", 0)
    number = next(_numbers)
    _local.depth, _local.number = depth + 1, number
    said = text % arguments if arguments else text
    thread = threading.current_thread().name
    began, clock = time.time(), time.monotonic()
    begun = StepRecord(said, depth, began, thread=thread, number=number, parent=parent)
    _tell(begun)
    failed = ""
    try:
        yield
    except BaseException as error:
        failed = type(error).__name__
        raise
    finally:
        _local.depth, _local.number = depth, parent
        seconds = time.monotonic() - clock
        log.info("%s%s (%.2f s)%s", "  " * depth, said, seconds, f" {failed}" if failed else "")
        _tell(replace(begun, seconds=seconds, failed=failed))


def _tell(record: StepRecord) -> None:
    for listener in tuple(_listeners):
        try:
            listener(record)
        except Exception:  # a broken view must not change what is being done
            log.exception("a listener of steps failed and is dropped")
            with contextlib.suppress(ValueError):
                _listeners.remove(listener)
