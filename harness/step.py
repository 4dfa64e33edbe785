"""Steps: what is being done now, for how long, inside what.

``with step("bind %s to vfio-pci", bdf):`` logs one line, times itself, tells the progress
line, and leaves a record for the timeline.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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


Listener = Callable[[StepRecord], None]

_local = threading.local()
_listeners: list[Listener] = []


def listen(listener: Listener) -> Callable[[], None]:
    """Call *listener* at each begin and end of a step; returns the way to stop that."""
    _listeners.append(listener)

    def stop() -> None:
        with contextlib.suppress(ValueError):
            _listeners.remove(listener)

    return stop


@contextlib.contextmanager
def step(text: str, *arguments: object) -> Iterator[None]:
    """Name and time what happens inside; %-style *arguments* as in logging."""
    depth: int = getattr(_local, "depth", 0)
    _local.depth = depth + 1
    said = text % arguments if arguments else text
    thread = threading.current_thread().name
    began, clock = time.time(), time.monotonic()
    _tell(StepRecord(said, depth, began, thread=thread))
    failed = ""
    try:
        yield
    except BaseException as error:
        failed = type(error).__name__
        raise
    finally:
        _local.depth = depth
        seconds = time.monotonic() - clock
        log.info("%s%s (%.2f s)%s", "  " * depth, said, seconds, f" {failed}" if failed else "")
        _tell(StepRecord(said, depth, began, seconds, failed, thread))


def _tell(record: StepRecord) -> None:
    for listener in tuple(_listeners):
        try:
            listener(record)
        except Exception:  # a broken view must not change what is being done
            log.exception("a listener of steps failed and is dropped")
            with contextlib.suppress(ValueError):
                _listeners.remove(listener)
