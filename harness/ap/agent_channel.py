"""One program behind the agent, with the face of an SSH channel.

So `harness.guest.remote_process.RemoteProcess` serves both.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from harness.ap.agent_wire import Frame, Kind, decode_number, exit_status
from harness.wait import Guard

_PIECE = 32768
"""Bytes of input in one frame."""


class _Pipe:
    """Bytes that came, and an event that is set when more did."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._events: list[threading.Event] = []

    def set_event(self, event: threading.Event) -> None:
        """Set *event* whenever something comes."""
        self._events.append(event)
        event.set()

    def tell(self) -> None:
        """Set the events."""
        for event in self._events:
            event.set()


class AgentChannel:
    """Input, output and end of one program."""

    def __init__(self, number: int, send: Callable[[Frame], None], check: Guard) -> None:
        self.number = number
        self._send = send
        self._check = check
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self.in_buffer = _Pipe()
        self.in_stderr_buffer = _Pipe()
        self._timeout: float | None = None
        self._hung_up = False
        self.eof_received = False
        """Nothing more will come."""
        self.status: int | None = None
        """Exit status (negative: signal), None while it runs or if the connection ended."""
        self.failed = 0
        """Errno if it could not be started."""

    @property
    def closed(self) -> bool:
        """Say whether we hung up."""
        return self._hung_up

    # -- our side ---------------------------------------------------------------------------------

    def settimeout(self, timeout: float | None) -> None:
        """Let `recv` wait this long."""
        self._timeout = timeout

    def recv(self, nbytes: int) -> bytes:
        """Return output, empty at its end.

        :raise TimeoutError: nothing in the time that was set.
        """
        return self._take_from(self.in_buffer, nbytes)

    def recv_stderr(self, nbytes: int) -> bytes:
        """Return error output, empty at its end."""
        return self._take_from(self.in_stderr_buffer, nbytes)

    def recv_ready(self) -> bool:
        """Say whether there is output."""
        return bool(self.in_buffer.data)

    def recv_stderr_ready(self) -> bool:
        """Say whether there is error output."""
        return bool(self.in_stderr_buffer.data)

    def sendall(self, s: bytes) -> None:
        """Give *s* to its input."""
        for at in range(0, len(s), _PIECE):
            self._send(Frame(self.number, Kind.INPUT, bytes(s[at : at + _PIECE])))

    def shutdown_write(self) -> None:
        """End its input."""
        if not self.eof_received:
            self._send(Frame(self.number, Kind.END_OF_INPUT))

    def kill(self) -> None:
        """Kill its process group."""
        if not self.eof_received:
            self._send(Frame(self.number, Kind.KILL))

    def close(self) -> None:
        """Hang up: its input ends, what it says is for nobody."""
        if not self._hung_up and not self.eof_received:
            try:
                self._send(Frame(self.number, Kind.END_OF_INPUT))
            except Exception:  # the system is gone: so is the program
                self.eof_received = True
        self._hung_up = True
        self._tell()

    def wait_end(self, *, timeout: float) -> bool:
        """Wait until all is said; say whether it is. A guard may raise."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not self.eof_received:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                if not self._changed.wait(min(left, 0.25)):
                    self._check()
        return True

    def _take_from(self, pipe: _Pipe, size: int) -> bytes:
        with self._changed:
            there = self._changed.wait_for(
                lambda: pipe.data or self.eof_received or self._hung_up, self._timeout
            )
            if not there:
                raise TimeoutError
            taken = bytes(pipe.data[:size])
            del pipe.data[:size]
            return taken

    # -- the agent's side -------------------------------------------------------------------------

    def take(self, frame: Frame) -> bool:
        """Take a frame of ours; say whether it was the last."""
        last = frame.kind in (Kind.STATUS, Kind.FAILED)
        with self._changed:
            if frame.kind is Kind.OUTPUT:
                self.in_buffer.data += frame.content
            elif frame.kind is Kind.ERRORS:
                self.in_stderr_buffer.data += frame.content
            elif frame.kind is Kind.STATUS:
                self.status = exit_status(decode_number(frame.content))
            elif frame.kind is Kind.FAILED:
                self.failed = decode_number(frame.content)
            self.eof_received = self.eof_received or last
        self._tell()
        return last

    def cut_off(self) -> None:
        """Nothing more will come: the connection ended."""
        with self._changed:
            self.eof_received = True
        self._tell()

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()
        self.in_buffer.tell()
        self.in_stderr_buffer.tell()
