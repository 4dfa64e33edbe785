"""What the kernel of a system says of DMA that its IOMMU refused."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import WaitTimeout
from harness.guest.rate_limit import mark_with_room
from harness.guest.system import System
from harness.parse.iommu_fault import IommuFault, iommu_faults, lines_of_faults
from harness.wait import wait_until

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
        return cls(system, mark_with_room(system, _ASKED, _asked, what="one more fault"))

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


def _asked(lines: Sequence[str]) -> float:
    """Return how often the kernel asked its limit for what it says of faults in *lines*."""
    return len(lines_of_faults(lines)) * _ASKED / _LINES
