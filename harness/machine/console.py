"""The serial console: always logged, always read, crashes recognised as they are printed.

A thread reads the console through pexpect line by line from the moment the machine exists.
Each line goes to ``console.log`` and past the crash patterns of `harness.parse.crash`; the
first crash ends every wait that watches `Console.check`.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import pexpect
from pexpect.socket_pexpect import SocketSpawn

from harness.errors import GuestCrashed, WaitTimeout
from harness.parse.crash import Crash, CrashCollector
from harness.wait import Guard

log = logging.getLogger(__name__)

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][AB0]|\x1bc")
_CHUNK = 1 << 16
_REPORT_LINES = 20


class Console:
    """The console of one machine.

    :param level: whose kernel talks here, for the message of a crash: ``L1``, ``L2``.
    :param log: file that gets every line.
    """

    def __init__(self, stream: socket.socket, *, name: str, level: str, log: Path) -> None:
        self.name = name
        self.level = level
        self.log_path = log
        self.lines: list[str] = []
        self.crash: Crash | None = None
        self.closed = False
        self._crashed_at = 0
        self._stream = stream
        self._changed = threading.Condition()
        try:
            self._log: IO[str] | None = log.open("w", encoding="utf-8", buffering=1)
            # Bytes: SocketSpawn does not decode, whatever encoding it is given (pexpect 4.9).
            self._spawn = SocketSpawn(stream, timeout=None, maxread=_CHUNK)
            self._thread = threading.Thread(target=self._read, name=f"console-{name}", daemon=True)
            self._thread.start()
        except BaseException:
            stream.close()
            raise

    def _read(self) -> None:
        collector = CrashCollector()
        try:
            while self._spawn.expect([b"\r?\n", pexpect.EOF]) == 0:
                self._take(_text(self._spawn.before), collector)
            if rest := _text(self._spawn.before):
                self._take(rest, collector)
        except (OSError, ValueError) as error:  # the socket was closed under us
            log.debug("%s: the console ended with %r", self.name, error)
        finally:  # whatever happened: nobody may wait for a reader that is gone
            with self._changed:
                self.closed = True
                self._changed.notify_all()

    def _take(self, line: str, collector: CrashCollector) -> None:
        try:
            if self._log is not None:
                self._log.write(line + "\n")
        except OSError as error:  # a full disk must not make us deaf
            log.warning("%s: %s is not complete: %s", self.name, self.log_path, error)
            self._log = None
        crash = collector.feed(line)
        with self._changed:
            self.lines.append(line)
            if crash is not None and crash.kind.severity > 0 and self.crash is None:
                self.crash = crash
                self._crashed_at = len(self.lines) - 1
            self._changed.notify_all()

    def check(self) -> None:
        """Raise if the kernel behind this console has crashed. A guard for waits.

        :raise GuestCrashed: with the kind, the level and the lines from the announcement on.
        """
        if self.crash is not None:
            with self._changed:
                lines = self.lines[self._crashed_at : self._crashed_at + _REPORT_LINES]
            raise GuestCrashed(
                f"{self.level} kernel of {self.name}: {self.crash.kind.value}",
                level=self.level,
                kind=self.crash.kind.value,
                seen="\n".join(lines),
                evidence=self.log_path,
            )

    def tail(self, count: int = 10) -> list[str]:
        """Return the last *count* lines, with one that has no line end yet."""
        with self._changed:
            lines = self.lines[-count:]
        pending = "" if self.closed else _text(self._spawn.buffer)
        return [*lines, pending][-count:] if pending else lines

    def wait_closed(self, *, timeout: float) -> bool:
        """Wait for the far end to close, when every line it said is here; say whether it did."""
        with self._changed:
            return self._changed.wait_for(lambda: self.closed, timeout)

    def wait_for(
        self, pattern: str, *, timeout: float, name: str = "", guards: Iterable[Guard] = ()
    ) -> re.Match[str]:
        """Return the match of *pattern* (a regular expression) in the first line that has it.

        Lines already printed count. A crash ends the wait at once.

        :raise WaitTimeout: no such line in *timeout* seconds.
        """
        expression = re.compile(pattern)
        deadline = time.monotonic() + timeout
        looked_at = 0
        watch = (self.check, *guards)
        while True:
            with self._changed:
                lines = self.lines[looked_at:]
                looked_at += len(lines)
            for line in lines:
                match = expression.search(line)
                if match is not None:
                    return match
            for guard in watch:
                guard()
            left = deadline - time.monotonic()
            if left <= 0 or (self.closed and looked_at == len(self.lines)):
                why = "the console closed first" if self.closed else f"{timeout:g} s passed"
                raise WaitTimeout(
                    f"{self.name}: {name or f'no console line matching {pattern!r}'}: {why}",
                    seen="\n".join(self.tail(8)) or "(nothing on the console)",
                    evidence=self.log_path,
                )
            with self._changed:
                if len(self.lines) == looked_at and not self.closed:
                    self._changed.wait(min(left, 0.5))

    def close(self) -> None:
        """Stop reading; the log stays. Callable twice."""
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        with contextlib.suppress(OSError):
            self._stream.close()
        if self._log is not None:
            with contextlib.suppress(OSError):
                self._log.close()


def _text(said: object) -> str:
    """Return console bytes as text without colours, cursor moves and carriage returns."""
    text = said.decode(errors="replace") if isinstance(said, bytes) else ""
    return _ESCAPES.sub("", text).rstrip("\r")
