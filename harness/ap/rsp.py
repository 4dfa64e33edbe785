"""A client of QEMU's gdbstub: registers, memory, breakpoints, step, go on, interrupt, detach.

Speaks the remote serial protocol (GDB manual, appendix E) over a connected stream. Nothing is
acknowledged: a Unix socket loses nothing, QEMU does not wait for it, and any byte but an
interrupt that comes while the machine runs stops it for good. Every exchange has a deadline.
None of the packages that speak it fits: they know only TCP, have no deadlines, or run a gdb.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.ap.rsp_log import RspLog
from harness.ap.rsp_packet import PacketReader, encode_packet
from harness.errors import MachineError, ParseError, WaitTimeout

ANSWER = 10.0
"""Seconds for an answer of a machine that stands still; a busy computer is slow."""
LARGEST_READ = 0x8000
"""Bytes of one memory packet: QEMU's packets end at 128 KiB, two digits a byte."""
_TRAP_SIGNALS = (5,)


class GdbFailed(MachineError):
    """The gdbstub refused something, or said what it must not say."""


class GdbGone(GdbFailed):
    """The connection to the gdbstub ended: the machine did."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a machine stands still.

    :param signal: its number as gdb counts: 5 for breakpoints and steps, 2 for an interrupt.
    :param fields: what else was said: ``thread``, ``watch``, ….
    """

    signal: int
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def thread(self) -> str:
        """Which processor, as the stub names it; empty if it did not say."""
        return self.fields.get("thread", "")

    @property
    def is_trap(self) -> bool:
        """Say whether a breakpoint, a watchpoint or a step ended."""
        return self.signal in _TRAP_SIGNALS


class Rsp:
    """One session. The machine stands still unless `resume` or `step` was the last word.

    Not for several threads at once.

    :param log: file that gets every exchange, the first and the last of them.
    """

    def __init__(self, stream: socket.socket, *, name: str = "gdb", log: Path | None = None):
        self.name = name
        self.exchanges = 0
        self._stream = stream
        self._reader = PacketReader()
        self._log = RspLog(log)
        self._selected = ""
        self._waits = False
        self._owed: list[str] = []
        """Packets sent with the last `resume` that were not acknowledged yet."""
        self._sending = threading.Lock()

    # -- session ------------------------------------------------------------------------------

    def begin(self) -> Stop:
        """Agree on how to speak; return why the machine stands still.

        :raise GdbFailed: what answers is no gdbstub.
        """
        # QEMU tells where breakpoints were hit only to those who know the word.
        self.ask("qSupported:swbreak+;hwbreak+;vContSupported+")
        return self._stop_of("?", self.ask("?"))

    def detach(self) -> None:
        """Remove what is left and let the machine go on without us."""
        with contextlib.suppress(MachineError, WaitTimeout):
            self.ask("D", timeout=2)
        self.close()

    def close(self) -> None:
        """Hang up; QEMU takes every breakpoint away and lets the machine go on."""
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)
        self._stream.close()
        self._log.close()

    # -- while it stands still ------------------------------------------------------------------

    def select(self, thread: str) -> None:
        """Talk about the processor *thread* from here on; nothing is sent if we do already."""
        if thread and thread != self._selected:
            self._expect_ok(f"Hg{thread}")
            self._selected = thread

    def read_registers(self) -> bytes:
        """Return the registers of the chosen processor, in the target's order."""
        return self._bytes_of("g", self.ask("g"))

    def write_register(self, number: int, value: int, *, width: int = 8) -> None:
        """Set one register, *width* bytes, big-endian."""
        self._expect_ok(register_packet(number, value, width=width))

    def read_memory(self, address: int, size: int) -> bytes:
        """Return memory at *address*, virtual unless inside `physical`.

        :raise GdbFailed: nothing is mapped there.
        """
        found = b""
        while len(found) < size:
            want = min(size - len(found), LARGEST_READ)
            question = f"m{address + len(found):x},{want:x}"
            part = self._bytes_of(question, self.ask(question))
            if len(part) != want:
                raise self._failed(question, f"{len(part)} bytes")
            found += part
        return found

    def write_memory(self, address: int, data: bytes) -> None:
        """Write memory at *address*.

        :raise GdbFailed: nothing is mapped there.
        """
        for at in range(0, len(data), LARGEST_READ):
            self._expect_ok(write_packet(address + at, data[at : at + LARGEST_READ]))

    @contextlib.contextmanager
    def physical(self) -> Iterator[None]:
        """Read and write physical addresses while inside (QEMU's ``qemu.PhyMemMode``)."""
        self._expect_ok("Qqemu.PhyMemMode:1")
        try:
            yield
        finally:
            self._expect_ok("Qqemu.PhyMemMode:0")

    def add_breakpoint(self, address: int, *, length: int = 2) -> None:
        """Stop before the instruction at the virtual *address*, in any address space."""
        self._expect_ok(f"Z0,{address:x},{length:x}")

    def remove_breakpoint(self, address: int, *, length: int = 2) -> None:
        """Take it away again."""
        self._expect_ok(f"z0,{address:x},{length:x}")

    def add_watchpoint(self, address: int, length: int) -> None:
        """Stop after a write to *length* bytes at *address*."""
        self._expect_ok(f"Z2,{address:x},{length:x}")

    def remove_watchpoint(self, address: int, length: int) -> None:
        """Take it away again."""
        self._expect_ok(f"z2,{address:x},{length:x}")

    def step(self, *, timeout: float = ANSWER) -> Stop:
        """Execute one instruction of the chosen processor; the others stand still."""
        thread = f":{self._selected}" if self._selected else ""
        self._send(f"vCont;s{thread}")
        self._waits = True
        stop = self.wait_stop(timeout=timeout)
        if stop is None:
            raise WaitTimeout(f"{self.name}: one step did not end within {timeout:g} s")
        return stop

    def resume(self, *, after: Sequence[str] = ()) -> None:
        """Let it go on; `wait_stop` is next.

        :param after: packets that are sent before, all at once; `wait_stop` hears whether they
            were done.
        """
        self._send(*after, "c")
        self._owed = list(after)
        self._waits = True

    # -- while it runs ----------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Ask it to stand still; `wait_stop` says when it does. For any thread."""
        self._send_raw(b"\x03")

    def wait_stop(self, *, timeout: float) -> Stop | None:
        """Return why it stands still, None if it still runs after *timeout* seconds.

        :raise GdbGone: the machine ended.
        """
        if not self._waits:
            raise self._failed("wait", "it was not told to go on")
        deadline = time.monotonic() + timeout
        while self._owed:
            said = self._receive(deadline)
            if said is None:
                return None
            if said != "OK":
                raise self._failed(self._owed[0], said)
            del self._owed[0]
        said = self._receive(deadline)
        if said is None:
            return None
        stop = self._stop_of("c", said)
        self._waits = False
        return stop

    # -- packets ----------------------------------------------------------------------------------

    def ask(self, question: str, *, timeout: float = ANSWER) -> str:
        """Send a packet and return the answer, empty if the stub does not know it.

        :raise WaitTimeout: no answer.
        :raise GdbGone: the connection ended.
        """
        return self.ask_all([question], timeout=timeout)[0]

    def ask_all(self, questions: Sequence[str], *, timeout: float = ANSWER) -> list[str]:
        """Send packets at once; return the answers, refusals among them.

        :raise WaitTimeout: one did not come.
        """
        if self._waits:
            raise self._failed(
                questions[0], "the machine runs: nothing but an interrupt can be said"
            )
        self._send(*questions)
        deadline = time.monotonic() + timeout
        answers = []
        for question in questions:
            said = self._receive(deadline)
            if said is None:
                raise WaitTimeout(
                    f"{self.name}: no answer to {_short(question)} within {timeout:g} s",
                    evidence=self._log.path,
                )
            answers.append(said)
        return answers

    def do_all(self, commands: Sequence[str]) -> None:
        """Send packets at once, each of which must be done.

        :raise GdbFailed: one was refused.
        """
        if not commands:
            return
        for command, said in zip(commands, self.ask_all(commands), strict=True):
            if said != "OK":
                raise self._failed(command, said)

    def _send(self, *texts: str) -> None:
        self.exchanges += 1
        for text in texts:
            self._log.note(">", text)
        self._send_raw(b"".join(encode_packet(text.encode("latin-1")) for text in texts))

    def _send_raw(self, data: bytes) -> None:
        try:
            with self._sending:  # an interrupt comes from any thread
                self._stream.sendall(data)
        except OSError as error:
            raise self._gone(str(error)) from error

    def _receive(self, deadline: float) -> str | None:
        while True:
            try:
                packet = self._reader.next()
            except ParseError as error:
                raise GdbFailed(
                    f"{self.name}: a broken packet", seen=f"{error.summary}: {error.text}",
                    evidence=self._log.path,
                ) from error  # fmt: skip
            if packet is not None:
                said = packet.decode("latin-1")
                self._log.note("<", said)
                return said
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._stream.settimeout(left)
            try:
                data = self._stream.recv(65536)
            except TimeoutError:
                return None
            except OSError as error:
                raise self._gone(str(error)) from error
            if not data:
                raise self._gone("it hung up")
            self._reader.feed(data)

    def _expect_ok(self, question: str) -> None:
        if (said := self.ask(question)) != "OK":
            raise self._failed(question, said)

    def _bytes_of(self, question: str, said: str) -> bytes:
        found = bytes_in(said)
        if found is None:
            raise self._failed(question, said)
        return found

    def _stop_of(self, question: str, said: str) -> Stop:
        if said[:1] in ("W", "X"):
            raise self._gone(f"the machine ended: {said}")
        if not re.match(r"[TS][0-9a-fA-F]{2}", said):
            raise self._failed(question, said)
        pairs = (word.split(":", 1) for word in said[3:].split(";") if ":" in word)
        return Stop(int(said[1:3], 16), {key: value for key, value in pairs})

    def _failed(self, question: str, said: str) -> GdbFailed:
        return GdbFailed(
            f"{self.name}: the gdbstub does not do {_short(question)}",
            seen=said or "(not supported)",
            evidence=self._log.path,
        )

    def _gone(self, why: str) -> GdbGone:
        return GdbGone(f"{self.name}: the gdbstub is gone", seen=why, evidence=self._log.path)


def register_packet(number: int, value: int, *, width: int = 8) -> str:
    """Return the packet that sets a register."""
    return f"P{number:x}={value.to_bytes(width, 'big').hex()}"


def write_packet(address: int, data: bytes) -> str:
    """Return the packet that writes memory, at most `LARGEST_READ` bytes."""
    return f"M{address:x},{len(data):x}:{data.hex()}"


def bytes_in(answer: str) -> bytes | None:
    """Return what was read, None if it was refused."""
    good = len(answer) % 2 == 0 and re.fullmatch(r"[0-9a-fA-F]+", answer)
    return bytes.fromhex(answer) if good else None


def _short(question: str) -> str:
    return question if len(question) < 60 else question[:57] + "…"
