"""How commands and files reach a system: here, or over SSH. One face for both.

SSH is paramiko over any connected stream, so that a guest inside a guest is reached through
a channel of the first one's connection. Unix sockets on the far side (QMP, consoles) are
reached by the static helper ``probe relay`` and become ordinary sockets on ours.
"""

from __future__ import annotations

import contextlib
import shlex
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import paramiko

from harness.errors import CommandFailed, Unreachable
from harness.machine.place import Place
from harness.wait import Guard

Command = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended."""

    command: str
    exit_status: int
    """Negative: ended by a signal; its number, or 1 where only that is known (SSH)."""
    stdout: str
    stderr: str


def command_text(command: Command) -> str:
    """Return shell text; a sequence of words is quoted."""
    return command if isinstance(command, str) else shlex.join(command)


class Transport(Place, Protocol):
    """Runs commands, moves files, opens streams: a `Place` with a shell."""

    def run(
        self, command: Command, *, timeout: float = 60, stdin: bytes = b"", check: bool = True
    ) -> Completed:
        """Run *command* (shell text, or words) to its end.

        :raise CommandFailed: *check* and the exit status is not 0.
        :raise Unreachable: the system went away, or *timeout* passed.
        """

    def open(self, command: Command) -> Conversation:
        """Start *command* and talk to it line by line."""

    def write(self, path: str, content: bytes) -> None:
        """Write a file there, whole (sysfs attributes included)."""

    def close(self) -> None:
        """Let go of the connection."""


class Conversation(Protocol):
    """A program that answers lines with lines."""

    def send(self, line: str) -> None:
        """Write one line to its input."""

    def receive(self, *, timeout: float = 30) -> str:
        """Return its next line, without the line end.

        :raise Unreachable: no line in *timeout* seconds, or it ended.
        """

    def close(self) -> None:
        """Close its input and let it end."""


class LineConversation:
    """A `Conversation` over a socket for reading and a function for writing.

    :param write: gives all bytes to the program's input.
    :param end: closes that input and lets the program end.
    :param last_words: returns what the program said on stderr.
    :param check: a guard: raises when the system is known to be dead.
    """

    def __init__(
        self,
        where: str,
        stream: socket.socket,
        write: Callable[[bytes], object],
        end: Callable[[], None],
        *,
        last_words: Callable[[], str] = lambda: "",
        check: Guard = lambda: None,
    ) -> None:
        self._where = where
        self._stream = stream
        self._write = write
        self._end = end
        self._last_words = last_words
        self._check = check
        self._buffer = b""

    def send(self, line: str) -> None:
        """Write one line.

        :raise Unreachable: the program ended.
        """
        try:
            self._write(line.encode() + b"\n")
        except (OSError, ValueError) as error:
            raise self._ended() from error

    def receive(self, *, timeout: float = 30) -> str:
        """Return the next line."""
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Unreachable(
                    f"{self._where}: no line within {timeout:g} s", seen=self._seen()
                )
            self._stream.settimeout(min(left, 0.5))
            try:
                data = self._stream.recv(65536)
            except TimeoutError:
                self._check()
                continue
            if not data:
                raise self._ended()
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace").rstrip("\r")

    def close(self) -> None:
        """End it."""
        self._end()
        self._stream.close()

    def _ended(self) -> Unreachable:
        self._check()
        return Unreachable(f"{self._where}: the program ended", seen=self._seen())

    def _seen(self) -> str:
        return self._buffer.decode(errors="replace") + self._last_words()


def pump(
    receive: Callable[[int], bytes], send: Callable[[bytes], object], end: Callable[[], object]
) -> None:
    """Move bytes in a thread until either side ends."""

    def move() -> None:
        with contextlib.suppress(OSError, EOFError, ValueError, paramiko.SSHException):
            while data := receive(65536):
                send(data)
        with contextlib.suppress(OSError, EOFError, ValueError):
            end()

    threading.Thread(target=move, name="pump", daemon=True).start()


def completed(
    where: str, text: str, status: int, out: bytes, err: bytes, *, check: bool
) -> Completed:
    """Return what a command said, or raise because of its exit status."""
    done = Completed(text, status, out.decode(errors="replace"), err.decode(errors="replace"))
    if check and status != 0:
        raise CommandFailed(
            text, exit_status=status, stdout=done.stdout, stderr=done.stderr, where=where
        )
    return done
