"""What the kernel of a system says of DMA that its IOMMU refused."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from harness.errors import WaitTimeout
from harness.guest.system import System
from harness.parse.iommu_fault import IommuFault, iommu_faults, lines_of_faults
from harness.wait import wait_until

_INTERVAL, _BURST = 5.0, 10
"""Linux allows itself so many lines in so many seconds (``DEFAULT_RATELIMIT_…``)."""
_TICK = 0.25
"""Seconds more, generously: its clock ticks, and the end of the interval is still inside."""
_LINES, _ASKED = 2, 3
"""A fault of VT-d makes two lines, for which ``dmar_fault()`` asks three times whether it may:
for either, and once more before it sees that there is no other fault."""


@dataclass(frozen=True, slots=True)
class FaultLog:
    """The faults in the kernel log of *system*, from where it was opened; see `listen`."""

    system: System
    _mark: int

    @classmethod
    def listen(cls, system: System) -> FaultLog:
        """Return the log from now on; waits while the kernel would keep silent.

        Of VT-d it tells three faults in five seconds, and half of the fourth.
        """
        (mark,) = wait_until(
            f"{system.name}: its kernel may speak of one more fault",
            lambda: _mark_if_it_may_speak(system),
            timeout=4 * _INTERVAL,
        )
        return cls(system, mark)

    def faults(self) -> tuple[IommuFault, ...]:
        """Return what was said until now."""
        return iommu_faults(self.system.kernel_log_since(self._mark).splitlines())

    def soon(self, *, timeout: float = 15) -> tuple[IommuFault, ...]:
        """Return what was said, as soon as anything was: the fault is an interrupt of its own.

        :param timeout: seconds after which nothing is taken for an answer.
        """
        with contextlib.suppress(WaitTimeout):
            wait_until(f"{self.system.name}: a fault in its log", self.faults, timeout=timeout)
        return self.faults()


def _mark_if_it_may_speak(system: System) -> tuple[int] | None:
    """Return the length of the log, alone in a tuple: an empty log is one too."""
    uptime, *log = system.run("cut -d' ' -f1 /proc/uptime; dmesg").stdout.splitlines()
    lately = [
        line
        for line in lines_of_faults(log[-4 * _BURST :])
        if line.time is not None and line.time > float(uptime) - _INTERVAL - _TICK
    ]
    asked = len(lately) * _ASKED / _LINES
    return (len(log),) if asked + _ASKED <= _BURST else None
