"""A program under ``probe run`` at the far end of an SSH channel."""

from __future__ import annotations

import contextlib
import threading
import time

import paramiko

from harness.errors import Unreachable

FIRST_LINE = 60.0
"""Seconds until ``probe run`` must have said the process id; emulated systems are slow."""
LAST_LINE = 15.0
"""Seconds for it to kill the group and to say how it ended."""

GONE = -9
"""Status of a program whose system went away: ``probe run`` killed it when its input ended."""


class RemoteProcess:
    """A process that dies when its channel does.

    :param where: name of the system, for messages.
    :param channel: runs ``probe run``; nothing of its output was read yet.
    :raise OSError: the program could not be started.
    :raise Unreachable: no answer.
    """

    def __init__(self, where: str, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._where = where
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._said = b""
        self._ended = False
        self._status: int | None = None
        channel.in_buffer.set_event(self._news)
        try:
            self._pid = self._first_line()
        except BaseException:
            channel.close()
            raise

    def _first_line(self) -> int:
        deadline = time.monotonic() + FIRST_LINE
        while b"\n" not in self._said and not self._ended:
            if time.monotonic() > deadline:
                raise Unreachable(
                    f"{self._where}: no answer from probe run within {FIRST_LINE:g} s"
                )
            self._wait(0.5)
        line = self._said.split(b"\n")[0].decode(errors="replace")
        if not line.startswith("pid="):
            self._channel.settimeout(1)
            stderr = ""
            with contextlib.suppress(TimeoutError):
                stderr = self._channel.recv_stderr(4096).decode(errors="replace").strip()
            raise OSError(2, f"probe run: {stderr or line or 'the connection ended'}")
        return int(line[4:])

    @property
    def pid(self) -> int:
        """Process id there."""
        return self._pid

    def poll(self) -> int | None:
        """Return the exit status (negative: signal), None while it runs."""
        self._gather()
        return self._status

    def kill(self) -> int:
        """Close its input: ``probe run`` kills the group, reaps and says so."""
        with contextlib.suppress(OSError, paramiko.SSHException, EOFError):
            self._channel.shutdown_write()
        deadline = time.monotonic() + LAST_LINE
        while self.poll() is None and time.monotonic() < deadline:
            self._wait(0.5)
        self._channel.close()
        return self._status if self._status is not None else GONE

    def _wait(self, seconds: float) -> None:
        """Wait for news, then take them."""
        self._news.wait(seconds)
        self._gather()

    def _gather(self) -> None:
        with self._lock:
            # Look before the last read: what comes with the end must not be lost to it.
            ended = bool(self._channel.closed or self._channel.eof_received)
            self._news.clear()
            while self._channel.recv_ready():
                self._said += self._channel.recv(4096)
            self._ended = ended
            if self._status is None:
                self._status = _status_in(self._said.decode(errors="replace"))
            if self._status is None and ended:
                self._status = GONE


def _status_in(said: str) -> int | None:
    # Only whole lines: half a number is another number.
    for line in said[: said.rfind("\n") + 1].splitlines():
        key, _, value = line.partition("=")
        if key == "exit":
            return int(value)
        if key == "signal":
            return -int(value)
    return None
