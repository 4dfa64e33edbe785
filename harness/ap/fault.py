"""Faults of adapters: response codes that an instruction gets for a while. They always end.

The kernel asks again until a reset has ended, with its locks held; a queue that is busy for
ever would hang the host. So every fault has a last time or a last moment, or both.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from harness.errors import ConfigError
from harness.model.ap.id import Apqn

MOST_TIMES = 10_000
LONGEST = 60.0
"""Seconds."""
ANSWERED = frozenset({"TAPQ", "RAPQ", "ZAPQ", "AQIC", "NQAP", "DQAP"})
"""Instructions that can be answered with a response code; QCI has none."""


class Fault:
    """Answer *code* for a while.

    :param on: names of the instructions it concerns.
    :param apqn: the queue, None for all.
    :param times: instructions until it ends, at most 10,000.
    :param seconds: until it ends, at most 60.
    :raise ConfigError: it would never end, or concerns nothing.
    """

    def __init__(
        self,
        code: int,
        *,
        on: str | frozenset[str] = ANSWERED,
        apqn: Apqn | None = None,
        times: int | None = None,
        seconds: float | None = None,
    ) -> None:
        self.code = code
        self.on = frozenset({on}) if isinstance(on, str) else on
        self.apqn = apqn
        self.times = times
        self.seconds = seconds
        self.answered = 0
        """Instructions that were answered by it so far."""
        self._began: float | None = None
        self._ended = False
        if not self.on or not self.on <= ANSWERED:
            raise ConfigError(
                f"a fault on {', '.join(sorted(self.on - ANSWERED)) or 'nothing'} cannot be",
                hint=f"there are {', '.join(sorted(ANSWERED))}",
            )
        if not 0 <= code <= 0xFF:
            raise ConfigError(f"{code:#x} is no response code", hint="they are one byte")
        unbounded = times is None and seconds is None
        wrong = (times is not None and not 0 < times <= MOST_TIMES) or (
            seconds is not None and not 0 < seconds <= LONGEST
        )
        if unbounded or wrong:
            raise ConfigError(
                f"a fault must end: times={times}, seconds={seconds}",
                hint=f"times up to {MOST_TIMES}, seconds up to {LONGEST:g}, or both",
            )

    def begin(self, now: float) -> None:
        """Let it count from *now* on."""
        self._began = now

    def end(self) -> None:
        """End it now."""
        self._ended = True

    def is_over(self, now: float) -> bool:
        """Say whether it has ended."""
        late = (
            self.seconds is not None
            and self._began is not None
            and now - self._began >= self.seconds
        )
        return self._ended or late or (self.times is not None and self.answered >= self.times)

    def concerns(self, apqn: Apqn, name: str) -> bool:
        """Say whether it is about this instruction to this queue."""
        return name in self.on and self.apqn in (None, apqn)

    def __enter__(self) -> Fault:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()


class Faults:
    """Those that have not ended, oldest first; the newest that concerns an instruction wins."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        """Begin *fault*."""
        fault.begin(self._clock())
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """End all."""
        for fault in self._faults:
            fault.end()
        self._faults.clear()

    def response(self, apqn: Apqn, name: str) -> int | None:
        """Return the response code for an instruction, None if no fault concerns it."""
        now = self._clock()
        self._faults = [fault for fault in self._faults if not fault.is_over(now)]
        for fault in reversed(self._faults):
            if fault.concerns(apqn, name):
                fault.answered += 1
                return fault.code
        return None
