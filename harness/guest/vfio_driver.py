"""A driver in user space of a system, moved from here: its hands are ``probe vfio drive``.

For tests of a function that vfio-pci has: pages for its DMA, its registers, interrupts, reset.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.errors import GuestError, Unreachable
from harness.guest.system import System, parse_pairs
from harness.guest.transport import Conversation
from harness.model.pci import Bdf
from harness.wait import wait_until

PAGE = 0x1000


class Refused(GuestError):
    """The kernel, or the driver, refused a step; ``seen`` names the errno."""


@dataclass(frozen=True, slots=True)
class Given:
    """A page that a device was given, between two in physical memory that it was not given."""

    iova: int
    physical: int
    number: int
    """By which `VfioDriver.changed` finds it; it keeps it when the mapping is gone."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What changed of a page and its two neighbours; offsets count from the start of the page."""

    count: int
    """Bytes."""
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.count} bytes from {self.first:#x} to {self.last:#x} changed"


@dataclass(frozen=True, slots=True)
class VfioDriver:
    """The driver of *bdf*; make one with `drive`."""

    bdf: Bdf
    _talk: Conversation

    def give(self, iova: int, *, access: str = "rw", fill: int = 0) -> Given:
        """Map a page at *iova*, every byte of it *fill*.

        :param access: what the device may do: ``r``, ``w`` or ``rw``.
        """
        said = self._say(f"map {iova:#x} {access}")
        if fill:
            self._say(f"put {iova:#x} {bytes([fill]).hex() * PAGE}")
        return Given(iova, int(said["phys"], 16), int(said["page"]))

    def changed(self, given: Given) -> Changed | None:
        """Return what changed of *given* and its neighbours since then, None if nothing did."""
        said = self._say(f"changed {given.number}")
        found = Changed(int(said["changed"]), int(said["first"]), int(said["last"]))
        return found if found.count else None

    def again(self) -> None:
        """Close the function and open it in another container; pages stay, mappings go."""
        self._say("again")

    def map(self, iova: int) -> int:
        """Give the device a page of zeroes at *iova*; return its physical address."""
        return int(self._say(f"map {iova:#x}")["phys"], 16)

    def unmap(self, iova: int) -> None:
        """Take the page at *iova* from the device; its bytes can still be read by `get`."""
        self._say(f"unmap {iova:#x}")

    def put(self, iova: int, data: bytes) -> None:
        """Store *data* in such a page, by the CPU."""
        self._say(f"put {iova:#x} {data.hex()}")

    def get(self, iova: int, count: int) -> bytes:
        """Return *count* bytes of such a page, read by the CPU."""
        return bytes.fromhex(self._say(f"get {iova:#x} {count}")["data"])

    def read(self, region: int, offset: int, *, width: int = 4) -> int:
        """Read a register; 0 to 5 are BARs, 7 is configuration space."""
        return int(self._say(f"read {region} {offset:#x} {width}")["value"], 16)

    def write(self, region: int, offset: int, value: int, *, width: int = 4) -> None:
        """Write a register."""
        self._say(f"write {region} {offset:#x} {width} {value:#x}")

    def write_all(self, region: int, values: Sequence[tuple[int, int]], *, width: int = 4) -> None:
        """Write registers, offset and value each, one after the other without a pause."""
        self._say_all([f"write {region} {at:#x} {width} {value:#x}" for at, value in values])

    def interrupts(self, kind: str, count: int) -> None:
        """Listen to *count* vectors of *kind*: ``intx``, ``msi``, ``msix``; 0 is none."""
        self._say(f"interrupts {kind} {count}")

    def wait(self, vector: int = 0, *, timeout: float = 5) -> int:
        """Return how often *vector* came since it was last asked for, 0 after *timeout* s."""
        return int(self._say(f"wait {vector} {int(timeout * 1000)}", timeout=timeout)["count"])

    def master(self, on: bool) -> int:
        """Let it be a bus master or not; return the COMMAND register."""
        return int(self._say(f"master {int(on)}")["command"], 16)

    def reset(self) -> None:
        """Reset it (``VFIO_DEVICE_RESET``)."""
        self._say("reset")

    def _say(self, line: str, *, timeout: float = 0) -> dict[str, str]:
        return self._say_all([line], timeout=timeout)[0]

    def _say_all(self, lines: Sequence[str], *, timeout: float = 0) -> list[dict[str, str]]:
        for line in lines:
            self._talk.send(line)
        answers = [parse_pairs(self._talk.receive(timeout=timeout + 30)) for _ in lines]
        for line, said in zip(lines, answers, strict=True):
            if "error" in said:
                raise Refused(f"driver of {self.bdf}: {line}: refused", seen=said["error"])
        return answers


@contextlib.contextmanager
def drive(system: System, bdf: Bdf, *, timeout: float = 10) -> Iterator[VfioDriver]:
    """Have *bdf* of *system*, which is with vfio-pci, opened by a driver while inside.

    It decodes memory and ports and is bus master then.

    :param timeout: seconds to wait while somebody else has it open: the last driver may be
        about to end.
    :raise Unreachable: it cannot be opened; ``seen`` says why.
    """
    talk = wait_until(
        f"{system.name}: {bdf} opened by nobody else", lambda: _open(system, bdf),
        timeout=timeout, interval=0.02,
    )  # fmt: skip
    try:
        yield VfioDriver(bdf, talk)
    finally:
        talk.close()


def _open(system: System, bdf: Bdf) -> Conversation | None:
    """Return the driver when it is ready, None if the function is open elsewhere."""
    talk = system.converse("vfio", "drive", str(bdf))
    try:
        talk.receive()  # ready=yes
    except Unreachable as error:
        talk.close()
        if os.strerror(errno.EBUSY) in error.seen:
            return None
        raise
    except BaseException:
        talk.close()
        raise
    return talk
