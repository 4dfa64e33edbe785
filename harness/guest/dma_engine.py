"""Devices that read and write memory where they are told to, moved by a driver in user space.

Each engine works on a function that `harness.guest.vfio_driver.drive` has opened. What an engine
writes is never a byte of `QUIET`: a page filled with that, or with what `Given` pages have around
them, shows every byte that was written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from harness.errors import GuestError
from harness.guest.vfio_driver import PAGE, VfioDriver
from harness.wait import wait_until

QUIET = 0xEE
"""Fills pages that an engine may write to."""
SECRET = 0x0000_5EC2_E75A_0000
"""A word to be read by an engine; of its bits 16 to 47 is known what the engine got."""
GOT = (SECRET >> 16) & 0xFFFF_FFFF
"""What `DmaEngine.read` returns of it."""

_TIMEOUT = 20.0
_OWN = 0x7FF0_0000
"""IOVA from which on an engine has pages of its own."""


class DmaEngine(Protocol):
    """A device that can be told to read and write memory."""

    @property
    def driver(self) -> VfioDriver:
        """What it is driven by."""

    def start(self) -> None:
        """Make it ready; again after a reset, and in each new container."""

    def write(self, address: int, count: int) -> None:
        """Let it write *count* bytes to *address*; both are multiples of 4."""

    def read(self, address: int) -> int:
        """Let it read the 8 bytes at *address*; return bits 16 to 47 of what it got."""

    def prepare_write(self, address: int) -> Callable[[], None]:
        """Have all ready to write 8 bytes to *address*; the result does it, a word to it."""


class EduEngine:
    """QEMU's edu: one engine between memory and a buffer of 4 KiB (QEMU docs/specs/edu.rst).

    A transfer takes about 100 ms, and an error of it is not told.
    """

    _BUFFER, _GOT = 0x40000, 0x40800
    _SOURCE, _TARGET, _COUNT, _COMMAND = 0x80, 0x88, 0x90, 0x98
    _RUN, _TO_MEMORY = 0x1, 0x2

    def __init__(self, driver: VfioDriver) -> None:
        self.driver = driver

    def start(self) -> None:
        """Fill its buffer with bytes that are not those of any page."""
        self.driver.give(_OWN, fill=0xC3)
        self._run(_OWN, self._BUFFER, PAGE, self._RUN)

    def write(self, address: int, count: int) -> None:
        """Let it write; see `DmaEngine`."""
        self._run(self._BUFFER, address, count, self._RUN | self._TO_MEMORY)

    def read(self, address: int) -> int:
        """Let it read; see `DmaEngine`."""
        self._run(address, self._GOT, 8, self._RUN)
        self._run(self._GOT, _OWN, 8, self._RUN | self._TO_MEMORY)
        return _middle(self.driver.get(_OWN, 8))

    def prepare_write(self, address: int) -> Callable[[], None]:
        """Set its registers all but the last; see `DmaEngine`."""
        self._set(self._BUFFER, address, 8)

        def go() -> None:
            self.driver.write(0, self._COMMAND, self._RUN | self._TO_MEMORY)
            self.wait_idle()

        return go

    def begin_write(self, address: int) -> None:
        """Start a write of 8 bytes and return at once: it is done about 100 ms later."""
        self._set(self._BUFFER, address, 8)
        self.driver.write(0, self._COMMAND, self._RUN | self._TO_MEMORY)

    def put_in(self, data: bytes) -> None:
        """Replace the first bytes of what it writes."""
        self.driver.put(_OWN, data)
        self._run(_OWN, self._BUFFER, len(data), self._RUN)

    @property
    def busy(self) -> bool:
        """A transfer has been started and is not done."""
        return bool(self.driver.read(0, self._COMMAND) & self._RUN)

    def wait_idle(self) -> None:
        """Return when the transfer that was started is done."""
        wait_until(f"DMA engine of {self.driver.bdf} idle", lambda: not self.busy,
                   timeout=_TIMEOUT, interval=0.01)  # fmt: skip

    def _set(self, source: int, target: int, count: int) -> None:
        registers = ((self._SOURCE, source), (self._TARGET, target), (self._COUNT, count))
        self.driver.write_all(0, registers, width=8)

    def _run(self, source: int, target: int, count: int, command: int) -> None:
        self._set(source, target, count)
        self.driver.write(0, self._COMMAND, command)
        self.wait_idle()


class NvmeEngine:
    """An NVMe controller, by commands of its admin queue (NVM Express base specification 2.0).

    It writes a log page (SMART, none of its first bytes is `QUIET`), and reads the time that it
    is to be set to (feature 0Eh: 48 bits that count milliseconds).
    """

    _CONFIGURATION, _STATUS = 0x14, 0x1C
    _QUEUE_SIZES, _SUBMISSION, _COMPLETION = 0x24, 0x28, 0x30
    _TAIL, _HEAD = 0x1000, 0x1004
    _ENABLE = 6 << 16 | 4 << 20 | 1
    """64-byte submissions, 16-byte completions, on."""
    _ENTRIES = 32
    _GET_LOG, _SET_FEATURES, _GET_FEATURES = 0x02, 0x09, 0x0A
    _SMART, _TIME = 0x02, 0x0E

    def __init__(self, driver: VfioDriver) -> None:
        self.driver = driver
        self._queue, self._done, self._data = (_OWN + n * 2 * PAGE for n in range(3))
        self._count = 0

    def start(self) -> None:
        """Give it pages for its queues and switch it on."""
        for page in (self._queue, self._done, self._data):
            self.driver.give(page)
        self.enable()

    def enable(self) -> None:
        """Switch it on, after a reset too; the queues are empty then."""
        self._turn(0)
        self._count = 0
        self.driver.put(self._done, bytes(16 * self._ENTRIES))
        size = self._ENTRIES - 1
        self.driver.write(0, self._QUEUE_SIZES, size << 16 | size)
        registers = ((self._SUBMISSION, self._queue), (self._COMPLETION, self._done))
        self.driver.write_all(0, registers, width=8)
        self._turn(1)

    def write(self, address: int, count: int) -> None:
        """Let it write; see `DmaEngine`."""
        self._submit(self._log_page(address, count))
        self._ring_and_wait()

    def read(self, address: int) -> int:
        """Let it read; see `DmaEngine`."""
        for opcode, where in ((self._SET_FEATURES, address), (self._GET_FEATURES, self._data)):
            self._submit(_entry(opcode, self._count, where, 0, self._TIME))
            self._ring_and_wait()
        return _middle(self.driver.get(self._data, 8))

    def prepare_write(self, address: int) -> Callable[[], None]:
        """Put the command in its queue; the doorbell is left. See `DmaEngine`."""
        self._submit(self._log_page(address, 8))
        return self._ring_and_wait

    def ring(self) -> None:
        """Tell it that there is a command, and do not wait."""
        self._count += 1
        self.driver.write(0, self._TAIL, self._count % self._ENTRIES)

    @property
    def ready(self) -> bool:
        """It is switched on (CSTS.RDY)."""
        return bool(self.driver.read(0, self._STATUS) & 1)

    # inside

    def _turn(self, on: int) -> None:
        self.driver.write(0, self._CONFIGURATION, self._ENABLE if on else 0)
        wait_until(f"{self.driver.bdf}: CSTS.RDY is {on}", lambda: self.ready is bool(on),
                   timeout=_TIMEOUT, interval=0.01)  # fmt: skip

    def _log_page(self, address: int, count: int) -> bytes:
        words = count // 4 - 1
        last = address + count - 1
        second = last & ~(PAGE - 1) if last // PAGE != address // PAGE else 0
        return _entry(
            self._GET_LOG, self._count, address, second, words << 16 | self._SMART, 0xFFFF_FFFF
        )

    def _submit(self, entry: bytes) -> None:
        self.driver.put(self._queue + 64 * (self._count % self._ENTRIES), entry)

    def _ring_and_wait(self) -> None:
        mine = self._count
        self.ring()
        phase = 1 - mine // self._ENTRIES % 2
        where = self._done + 16 * (mine % self._ENTRIES) + 12

        def completed() -> bool:
            word = int.from_bytes(self.driver.get(where, 4), "little")
            if word >> 16 & 1 != phase:
                return False
            if word & 0xFFFF != mine & 0xFFFF:
                raise GuestError(f"{self.driver.bdf} completed another command", seen=hex(word))
            return True

        wait_until(f"{self.driver.bdf}: command {mine} completed", completed,
                   timeout=_TIMEOUT, interval=0.01)  # fmt: skip
        self.driver.write(0, self._HEAD, (mine + 1) % self._ENTRIES)


def _entry(opcode: int, number: int, first: int, second: int, word: int, space: int = 0) -> bytes:
    """Return a submission: opcode, identifier, namespace, two PRPs, and command word 10."""
    parts = (
        (opcode | (number & 0xFFFF) << 16, 4), (space, 4), (0, 16),
        (first, 8), (second, 8), (word, 4), (0, 20),
    )  # fmt: skip
    return b"".join(value.to_bytes(size, "little") for value, size in parts)


def _middle(word: bytes) -> int:
    return int.from_bytes(word, "little") >> 16 & 0xFFFF_FFFF


ENGINES: dict[str, Callable[[VfioDriver], DmaEngine]] = {
    "edu": EduEngine,
    "emulated": EduEngine,
    "nvme": NvmeEngine,
}
"""By name of the device in the isolation suite."""
