"""QMP with a plain blocking face, over `qemu.qmp` on one loop thread per process.

The loop keeps events flowing between commands; callers block with a deadline. Every exchange
is appended to ``qmp.jsonl``: one JSON object a line with the time, the direction (``>`` we
said, ``<`` QEMU answered, ``!`` event) and the message.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import ConnectError, ExecuteError, QMPClient
from qemu.qmp import QMPError as ClientError

from harness.errors import MachineDied, MachineError, QmpFailed, WaitTimeout
from harness.wait import Guard, hear_guards

log = logging.getLogger(__name__)

T = TypeVar("T")
Json = Mapping[str, Any]


class _Loop:
    """The one event loop of this process, started when first needed."""

    _lock = threading.Lock()
    _loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def get(cls) -> asyncio.AbstractEventLoop:
        with cls._lock:
            if cls._loop is None or not cls._loop.is_running():
                loop = asyncio.new_event_loop()
                # A QEMU that is killed breaks off its reader task; nobody awaits that one.
                loop.set_exception_handler(lambda _, context: log.debug("%s", context))
                threading.Thread(target=loop.run_forever, name="qmp-loop", daemon=True).start()
                cls._loop = loop
            return cls._loop


_SLICE = 0.05
"""Seconds between two looks at the guards while an answer is waited for."""


def _blocking(work: Coroutine[Any, Any, T], timeout: float, guards: Iterable[Guard] = ()) -> T:
    """Run *work* on the loop thread; a guard that raises, or the deadline, cancels it."""
    future = asyncio.run_coroutine_threadsafe(work, _Loop.get())
    deadline = time.monotonic() + timeout
    try:
        while True:
            left = deadline - time.monotonic()
            finished, _ = concurrent.futures.wait([future], max(min(left, _SLICE), 0))
            if finished:
                return future.result()
            if left <= 0:
                raise concurrent.futures.TimeoutError
            for guard in guards:
                guard()
    except BaseException:
        future.cancel()
        raise


class _Demote(logging.Filter):
    """Makes what qemu.qmp calls errors visible only to those who debug.

    It logs an ERROR for every peer that hangs up, which a QEMU that refuses its command line
    does. Each of these reaches the caller as an exception of ours; CRITICAL, its word for
    faults of its own, stays.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.CRITICAL:
            return True
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return log.isEnabledFor(logging.DEBUG)


_DEMOTE = _Demote()


class Qmp:
    """One QMP session.

    :param log: where to append the exchanges.
    :param guards: called while an answer is waited for and when the connection is lost; they
        raise when QEMU or the system under it is known to be dead, and say why.
    """

    def __init__(self, name: str, log: Path, *, guards: Iterable[Guard] = ()) -> None:
        self.name = name
        self.log_path = log
        self._guards = tuple(guards)
        self._log = log.open("a", encoding="utf-8", buffering=1)
        self._lock = threading.Lock()
        self._client = QMPClient(name)
        self._client.logger.addFilter(_DEMOTE)
        self._events: collections.deque[dict[str, Any]] = collections.deque(maxlen=2000)
        self._seen = 0
        self._forbidden: dict[str, str] = {}
        self.halted = False
        """The vCPUs stand still, by the last event that said so."""
        self.flat_views_read = 0
        """How often ``info mtree -f`` was asked: it leaks references (docs/findings)."""
        self._changed = threading.Condition()
        self._client.register_listener(self._make_listener())

    def _make_listener(self) -> Any:
        from qemu.qmp.events import EventListener

        qmp = self

        class Tap(EventListener):
            async def put(self, event: Any) -> None:
                message = dict(event)
                qmp._note("!", message)
                with qmp._changed:
                    qmp._events.append(message)
                    if message["event"] in ("STOP", "RESUME"):
                        qmp.halted = message["event"] == "STOP"
                    qmp._seen += 1
                    qmp._changed.notify_all()

        return Tap()

    def _note(self, direction: str, message: Any) -> None:
        line = json.dumps({"time": round(time.time(), 4), "way": direction, "message": message})
        with self._lock:
            try:
                self._log.write(line + "\n")
            except ValueError:  # closed
                pass
            except OSError as error:  # a full disk must not end the session
                log.warning("%s: %s is not complete: %s", self.name, self.log_path, error)

    def connect(self, stream: socket.socket, *, timeout: float = 30) -> Json:
        """Greet QEMU over a connected *stream*; return its greeting.

        The stream is ours from here on, and closed if this fails.

        :raise QmpFailed: what answers is not QMP, or nothing answers.
        :raise MachineDied: the connection ended.
        """
        stream.setblocking(False)
        try:
            self._connect(stream, timeout)
        except BaseException:
            self._hang_up()
            stream.close()
            raise
        greeting = self._client.greeting
        said: dict[str, Any] = greeting._asdict() if greeting is not None else {}
        self._note("<", said)
        return said

    def _connect(self, stream: socket.socket, timeout: float) -> None:
        try:
            _blocking(self._client.connect(stream), timeout, self._guards)
        except concurrent.futures.TimeoutError as error:
            raise QmpFailed(
                f"{self.name}: no QMP greeting within {timeout:g} s", evidence=self.log_path
            ) from error
        except ConnectError as error:
            if isinstance(error.exc, EOFError | ConnectionError):
                raise MachineDied(
                    f"{self.name}: the QMP connection ended before the greeting",
                    seen=str(error), evidence=self.log_path,
                ) from error  # fmt: skip
            raise QmpFailed(
                f"{self.name}: QMP did not start", description=str(error), evidence=self.log_path
            ) from error
        except ClientError as error:
            raise QmpFailed(
                f"{self.name}: QMP did not start", description=str(error), evidence=self.log_path
            ) from error

    def forbid(self, command: str, why: str) -> None:
        """Let *command* not be given from here on; in the human monitor too."""
        self._forbidden[command] = why

    def _check_allowed(self, command: str) -> None:
        if why := self._forbidden.get(command):
            raise MachineError(f"{self.name}: {command} is not given here", hint=why)

    def execute(self, command: str, arguments: Json | None = None, *, timeout: float = 60) -> Any:
        """Execute *command* and return what QEMU returns.

        :raise QmpFailed: QEMU said no, or did not answer in *timeout* seconds.
        :raise MachineDied: the connection ended.
        """
        self._check_allowed(command)
        self._note(">", {"execute": command, "arguments": dict(arguments or {})})
        try:
            answer = _blocking(
                self._client.execute(command, dict(arguments) if arguments else None),
                timeout,
                self._guards,
            )
        except ExecuteError as error:
            self._note("<", {"error": {"class": error.error_class, "desc": str(error)}})
            raise QmpFailed(
                f"{self.name}: QEMU refused {command}",
                error_class=error.error_class,
                description=str(error),
                evidence=self.log_path,
            ) from error
        except concurrent.futures.TimeoutError as error:
            raise QmpFailed(
                f"{self.name}: no answer to {command} within {timeout:g} s",
                description="QEMU is alive but its main loop does not answer",
                evidence=self.log_path,
            ) from error
        except ClientError as error:
            self._ask_guards()
            why = self._hang_up() or str(error)
            self._note("<", {"connection ended": why})
            raise MachineDied(
                f"{self.name}: the QMP connection ended during {command}",
                seen=why,
                evidence=self.log_path,
            ) from error
        self._note("<", {"return": answer})
        return answer

    def _ask_guards(self) -> None:
        if self._guards:
            hear_guards(self.name, self._guards)

    def hmp(self, line: str, *, timeout: float = 60) -> str:
        """Execute a human monitor command and return its text with plain line ends."""
        self._check_allowed(line.split(maxsplit=1)[0] if line.strip() else "")
        self.flat_views_read += line.startswith("info mtree -f")
        text = self.execute("human-monitor-command", {"command-line": line}, timeout=timeout)
        return str(text).replace("\r\n", "\n")

    def mark(self) -> int:
        """Return a position in the stream of events, for `wait_event`."""
        with self._changed:
            return self._seen

    def events(self, name: str, *, since: int = 0) -> list[Json]:
        """Return the data of the events *name* after *since* that have come so far."""
        with self._changed:
            first = self._seen - len(self._events)
            return [
                dict(event.get("data", {}))
                for number, event in enumerate(self._events, start=first)
                if number >= since and event["event"] == name
            ]

    def wait_event(
        self,
        name: str,
        *,
        timeout: float,
        since: int = 0,
        where: Callable[[Json], bool] = lambda data: True,
        guards: tuple[Guard, ...] = (),
    ) -> Json:
        """Return the data of the first event *name* after *since* for which *where* holds.

        Take ``since = qmp.mark()`` *before* the command that causes it.

        :raise WaitTimeout: no such event in *timeout* seconds.
        """
        watch = (*self._guards, *guards)
        deadline = time.monotonic() + timeout
        while True:
            with self._changed:
                first = self._seen - len(self._events)
                for number, event in enumerate(self._events, start=first):
                    data = event.get("data", {})
                    if number >= since and event["event"] == name and where(data):
                        return dict(data)
                left = deadline - time.monotonic()
                if left <= 0:
                    recent = [event["event"] for event in list(self._events)[-8:]]
                    raise WaitTimeout(
                        f"{self.name}: no event {name} within {timeout:g} s",
                        seen=f"last events: {', '.join(recent) or 'none'}",
                        evidence=self.log_path,
                    )
                self._changed.wait(min(left, 0.5))
            for guard in watch:
                guard()

    def close(self) -> None:
        """End the session; never raises for a peer that is gone. Callable twice."""
        self._hang_up()
        with self._lock, contextlib.suppress(OSError):
            self._log.close()

    def _hang_up(self) -> str:
        """Disconnect; return why the connection had ended before, empty if it had not."""
        try:
            _blocking(self._client.disconnect(), 5)
        # Whatever ended the reader or the writer comes out here, of any type.
        except Exception as error:
            log.debug("%s: QMP ended with %r", self.name, error)
            return f"{type(error).__name__}: {error}".rstrip(": ")
        return ""
