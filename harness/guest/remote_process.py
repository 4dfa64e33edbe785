"""A program under ``probe run`` at the far end of a channel."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Mapping

import paramiko

from harness.errors import Unreachable
from harness.guest.channel import Channel

FIRST_LINE = 60.0
"""Seconds until ``probe run`` must have said the process id; emulated systems are slow."""
LAST_LINE = 15.0
"""Seconds for it to kill the group and to say how it ended; then for each part of the files."""

_STATUS = re.compile(rb"^(exit|signal)=\d+\n", re.MULTILINE)
_FILE = re.compile(rb"file=(\S+) size=(\d+)\n")

GONE = -9
"""Status of a program whose system went away: ``probe run`` killed it when its input ended."""


class RemoteProcess:
    """A process that dies when its channel does.

    :param where: name of the system, for messages.
    :param channel: runs ``probe run``; nothing of its output was read yet.
    :raise OSError: the program could not be started.
    :raise Unreachable: no answer.
    """

    def __init__(self, where: str, channel: Channel) -> None:
        self._channel = channel
        self._where = where
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._said = bytearray()
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
            self._take_news(0.5)
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
        self._hear_out()
        return self._status if self._status is not None else GONE

    def wait(self, seconds: float) -> int | None:
        """Return the exit status as soon as it is told, None if it still runs."""
        deadline = time.monotonic() + seconds
        while self.poll() is None and (left := deadline - time.monotonic()) > 0:
            self._take_news(min(left, 0.5))
        return self._status

    def left(self) -> Mapping[str, bytes]:
        """Return the files that it left in its directory, by name.

        :raise Unreachable: they did not come whole.
        """
        self._hear_out()  # ends with ``shown=``, if it was started with a directory
        found: dict[str, bytes] = {}
        said = bytes(self._said)
        at = _STATUS.search(said)
        end = at.end() if at is not None else len(said)
        while head := _FILE.match(said, end):
            end = head.end() + int(head[2])
            found[head[1].decode()] = said[head.end() : end]
        if said[end:] != b"shown=%d\n" % len(found):
            raise Unreachable(
                f"{self._where}: the connection ended before all that the program left was here",
                seen=f"{len(said)} bytes, files: {', '.join(found) or 'none'}",
            )
        return found

    def leave(self) -> None:
        """Tell ``probe run`` that it shall go on without us."""
        self._channel.sendall(b"stay\n")
        self._channel.shutdown_write()
        self._hear_out()

    def _hear_out(self) -> None:
        """Wait for all that ``probe run`` has to say, as long as it goes on saying it."""
        size, deadline = 0, 0.0
        while not self._ended:
            if len(self._said) != size or not deadline:
                size, deadline = len(self._said), time.monotonic() + LAST_LINE
            elif time.monotonic() > deadline:
                break
            self._take_news(0.5)
        self._channel.close()

    def _take_news(self, seconds: float) -> None:
        """Wait for news, then take them."""
        self._news.wait(seconds)
        self._gather()

    def _gather(self) -> None:
        with self._lock:
            # In this order: neither the end nor what comes with it is lost.
            self._news.clear()
            ended = bool(self._channel.closed or self._channel.eof_received)
            while self._channel.recv_ready():
                self._said += self._channel.recv(65536)
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
