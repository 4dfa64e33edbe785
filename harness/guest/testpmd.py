"""DPDK's testpmd in a system: one port, every frame goes back with its addresses swapped."""

from __future__ import annotations

import contextlib
import enum
import shlex
from collections.abc import Iterator, Sequence

from harness.errors import GuestError, Unreachable
from harness.guest.huge_pages import huge_pages
from harness.guest.system import System
from harness.guest.transport import Conversation
from harness.model.pci import Bdf
from harness.parse.testpmd import ForwardCounts, parse_forward_counts

HUGE_PAGES = 64
"""Of 2 MiB."""
_MIB = 64


class Memory(enum.Enum):
    """Where its packets are, and by what addresses the device is told of them."""

    PAGES = ("--no-huge", "--no-shconf", "--iova-mode=va")
    """Pages of 4 KiB, by virtual address: needs vfio with an IOMMU."""
    HUGE = ("--in-memory", "--iova-mode=va")
    """Huge pages, by virtual address: needs the same."""
    PHYSICAL = ("--in-memory", "--iova-mode=pa")
    """Huge pages, by physical address: all that UIO and no-iommu can do."""


def testpmd_words(prefix: Sequence[str], bdf: Bdf, memory: Memory) -> list[str]:
    """Return the command that forwards the frames of *bdf*.

    :param prefix: starts the program, with its drivers.
    """
    return [
        *prefix,
        "--lcores=(0-1)@0", "-m", str(_MIB), "--no-telemetry", *memory.value, "-a", str(bdf),
        "--",
        "--port-topology=loop", "--forward-mode=macswap", "--total-num-mbufs=2048",
        # What came before it forwards counts too; it does not wait for a link.
        "--no-flush-rx", "--no-lsc-interrupt", "--disable-link-check",
    ]  # fmt: skip


class Testpmd:
    """One that runs; see `testpmd`."""

    __test__ = False  # pytest: not a test class

    def __init__(self, talk: Conversation) -> None:
        self._talk = talk
        self.output = ""
        """What it said, once it has ended."""

    def stop(self) -> ForwardCounts:
        """End it; return what it counted.

        :raise GuestError: it had ended before, or does not end.
        """
        try:
            self._talk.send("")
        except Unreachable as error:
            raise GuestError("testpmd ended by itself", seen=error.seen) from error
        lines: list[str] = []
        with contextlib.suppress(Unreachable):  # its end
            while True:
                lines.append(self._talk.receive(timeout=60))
        self.output = "\n".join(lines) + "\n"
        if "Bye..." not in lines:
            raise GuestError("testpmd did not end as it should", seen=self.output[-2000:])
        return parse_forward_counts(self.output)

    def close(self) -> None:
        """End it whatever it does."""
        self._talk.close()


@contextlib.contextmanager
def testpmd(
    system: System, prefix: Sequence[str], bdf: Bdf, memory: Memory = Memory.PAGES
) -> Iterator[Testpmd]:
    """Have it forward the frames of *bdf*, which vfio-pci or UIO has, while inside.

    It takes a second or two until it does; it does not say when.
    """
    pages = contextlib.nullcontext() if memory is Memory.PAGES else huge_pages(system, HUGE_PAGES)
    with pages:
        words = shlex.join(testpmd_words(prefix, bdf, memory))
        talk = system.transport.open(f"exec {words} 2>&1")
        running = Testpmd(talk)
        try:
            yield running
        finally:
            running.close()
