"""How much Linux still says now: of one place in its source ten messages in five seconds.

Sources: Linux ``include/linux/ratelimit_types.h`` (``DEFAULT_RATELIMIT_INTERVAL``,
``DEFAULT_RATELIMIT_BURST``), ``lib/ratelimit.c``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.guest.system import System
from harness.parse.kernel_line import read_kernel_line
from harness.wait import wait_until

_INTERVAL, _BURST = 5.0, 10
_TICK = 0.25
"""Seconds more, generously: its clock ticks, and the end of the interval is still inside."""


def mark_with_room(
    system: System, wanted: int, used: Callable[[Sequence[str]], float], *, what: str
) -> int:
    """Wait until the kernel would say *wanted* more; return the length of its log then.

    :param used: returns how often it asked its limit for lines, which it said lately.
    :param what: of which it would keep silent; for messages.
    """

    def look() -> tuple[int] | None:
        uptime, *log = system.run("cut -d' ' -f1 /proc/uptime; dmesg").stdout.splitlines()
        lately = _since(log, float(uptime) - _INTERVAL - _TICK)
        # Alone in a tuple: an empty log is one too.
        return (len(log),) if used(lately) + wanted <= _BURST else None

    (mark,) = wait_until(
        f"{system.name}: its kernel may speak of {what}", look, timeout=4 * _INTERVAL
    )
    return mark


def _since(log: Sequence[str], when: float) -> list[str]:
    """Return the lines said after *when*, seconds since boot."""
    timed = ((line, read_kernel_line(line).time) for line in log)
    return [line for line, time in timed if time is not None and time > when]
