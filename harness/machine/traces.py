"""Counting trace events in a window of time.

QEMU is built with the ``log`` backend in every distribution: events are switched over QMP and
written line by line to the file of ``-D`` (ENV-01, ENV-02). A window remembers where that file
ended when it opened, and reads what came since when it closes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from types import TracebackType

from harness.errors import HarnessError, QmpFailed
from harness.machine.place import Place
from harness.machine.qmp import Qmp
from harness.parse.trace_log import TraceEvent, parse_trace_log


class TraceWindow:
    """Trace events between entering and leaving; read them afterwards.

    Events that this QEMU does not know are listed in ``unknown`` (names change: INT-10).
    """

    def __init__(self, qmp: Qmp, place: Place, path: str, events: Sequence[str]) -> None:
        self._qmp = qmp
        self._place = place
        self._path = path
        self._names = tuple(events)
        self._began = 0
        self.unknown: tuple[str, ...] = ()
        self.events: tuple[TraceEvent, ...] = ()

    def __enter__(self) -> TraceWindow:
        unknown = []
        for name in self._names:
            try:
                self._switch(name, on=True)
            except QmpFailed as error:
                if not error.error_class:  # no answer is not a no
                    raise
                unknown.append(name)
        self.unknown = tuple(unknown)
        self._began = self._place.size(self._path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        known = [name for name in self._names if name not in self.unknown]
        if kind is not None:
            # The machine may be shared: it must not go on tracing. But the first error counts.
            with contextlib.suppress(HarnessError):
                for name in known:
                    self._switch(name, on=False)
            return
        for name in known:
            self._switch(name, on=False)
        self.events = self.so_far()

    def so_far(self) -> tuple[TraceEvent, ...]:
        """Return the events up to now (for waits while the window is open)."""
        text = self._place.read(self._path, offset=self._began).decode(errors="replace")
        return tuple(parse_trace_log(text))

    def _switch(self, name: str, *, on: bool) -> None:
        self._qmp.execute("trace-event-set-state", {"name": name, "enable": on})

    def count(self, name: str, containing: str = "") -> int:
        """Return how many events *name* arrived, with *containing* in their arguments."""
        return sum(e.name == name and containing in e.arguments for e in self.events)

    def counts(self) -> dict[str, int]:
        """Return events by name."""
        found: dict[str, int] = {}
        for event in self.events:
            found[event.name] = found.get(event.name, 0) + 1
        return found
