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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import paramiko

from harness.errors import CommandFailed, Unreachable
from harness.machine.place import Place

Command = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended."""

    command: str
    exit_status: int
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
    """A `Conversation` over a socket for reading and a function for writing."""

    def __init__(
        self,
        where: str,
        stream: socket.socket,
        write: Callable[[bytes], object],
        flush: Callable[[], object],
        end: Callable[[], None],
    ) -> None:
        self._where = where
        self._stream = stream
        self._write = write
        self._flush = flush
        self._end = end
        self._buffer = b""

    def send(self, line: str) -> None:
        """Write one line."""
        self._write(line.encode() + b"\n")
        self._flush()

    def receive(self, *, timeout: float = 30) -> str:
        """Return the next line."""
        self._stream.settimeout(timeout)
        while b"\n" not in self._buffer:
            try:
                data = self._stream.recv(65536)
            except TimeoutError as error:
                raise Unreachable(
                    f"{self._where}: no line within {timeout:g} s",
                    seen=self._buffer.decode(errors="replace"),
                ) from error
            if not data:
                raise Unreachable(
                    f"{self._where}: the program ended",
                    seen=self._buffer.decode(errors="replace"),
                )
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace").rstrip("\r")

    def close(self) -> None:
        """End it."""
        self._end()
        self._stream.close()


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
