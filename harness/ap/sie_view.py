"""Looks at guests of an AP host in the moment before they would run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from harness.ap.cpu import GPR, PSW_ADDRESS
from harness.ap.rsp import GdbFailed, Rsp
from harness.ap.sie import SieEntry, SyntheticExit, find_sie, read_sie_entry
from harness.ap.trap import Standing, TrapLoop
from harness.wait import wait_until

_FUNCTION = 256
"""Bytes of ``__sie64a`` that are searched for the instruction."""
_SIE_BLOCK = 14
"""Register with the address of the SIE block (arch/s390/kernel/entry.S)."""
_SIE_LENGTH = 4


class SieView:
    """Breakpoint on the SIE instruction of a kernel.

    :param function: address of ``__sie64a``.
    """

    def __init__(self, traps: TrapLoop, function: int) -> None:
        self._traps = traps
        self._function = function

    @contextlib.contextmanager
    def entries(self, exit: SyntheticExit | None = None) -> Iterator[list[SieEntry]]:
        """Collect what guests that are about to run could use, while inside.

        The instruction is stepped over: TCG has none. KVM then finds the intercept *exit*, or
        in its absence whatever the SIE block said before.
        """
        found: list[SieEntry] = []

        at = self._find()

        def arrived(standing: Standing) -> None:
            block = standing.registers.gprs[_SIE_BLOCK]
            found.append(read_sie_entry(block, standing.read_physical))
            if exit is not None:
                for address, data in exit.writes(block):
                    standing.write_physical(address, data)
                for number, value in exit.gprs:
                    standing.rsp.write_register(GPR + number, value)
            standing.rsp.write_register(PSW_ADDRESS, at + _SIE_LENGTH)

        self._traps.at(at, arrived)
        try:
            yield found
        finally:
            self._traps.no_more_at(at)

    def _find(self) -> int:
        """Return where the instruction is. The kernel can be read only while it runs itself."""

        def look(rsp: Rsp) -> int | None:
            try:
                return self._function + find_sie(rsp.read_memory(self._function, _FUNCTION))
            except GdbFailed:
                return None

        return wait_until(
            "the code that runs guests can be read",
            lambda: self._traps.while_standing(look),
            timeout=15,
            guards=(self._traps.check,),
        )
