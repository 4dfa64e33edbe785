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
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import ExecuteError, QMPClient
from qemu.qmp import QMPError as ClientError

from harness.errors import MachineDied, QmpFailed, WaitTimeout
from harness.wait import Guard

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


def _blocking(work: Coroutine[Any, Any, T], timeout: float) -> T:
    future = asyncio.run_coroutine_threadsafe(work, _Loop.get())
    try:
        return future.result(timeout)
    except concurrent.futures.TimeoutError:
        future.cancel()
        raise


class Qmp:
    """One QMP session.

    :param log: where to append the exchanges.
    """

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log_path = log
        self._log = log.open("a", encoding="utf-8", buffering=1)
        self._lock = threading.Lock()
        self._client = QMPClient(name)
        self._events: collections.deque[dict[str, Any]] = collections.deque(maxlen=2000)
        self._seen = 0
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
                    qmp._seen += 1
                    qmp._changed.notify_all()

        return Tap()

    def _note(self, direction: str, message: Any) -> None:
        line = json.dumps({"time": round(time.time(), 4), "way": direction, "message": message})
        with self._lock, contextlib.suppress(ValueError):  # closed
            self._log.write(line + "\n")

    def connect(self, stream: socket.socket, *, timeout: float = 30) -> Json:
        """Greet QEMU over a connected *stream*; return its greeting.

        :raise QmpFailed: what answers is not QMP, or nothing answers.
        """
        stream.setblocking(False)
        try:
            _blocking(self._client.connect(stream), timeout)
        except concurrent.futures.TimeoutError as error:
            raise QmpFailed(
                f"{self.name}: no QMP greeting within {timeout:g} s", evidence=self.log_path
            ) from error
        except ClientError as error:
            raise QmpFailed(
                f"{self.name}: QMP did not start", description=str(error), evidence=self.log_path
            ) from error
        greeting = self._client.greeting
        said: dict[str, Any] = greeting._asdict() if greeting is not None else {}
        self._note("<", said)
        return said

    def execute(self, command: str, arguments: Json | None = None, *, timeout: float = 60) -> Any:
        """Execute *command* and return what QEMU returns.

        :raise QmpFailed: QEMU said no, or did not answer in *timeout* seconds.
        :raise MachineDied: the connection ended.
        """
        self._note(">", {"execute": command, "arguments": dict(arguments or {})})
        try:
            answer = _blocking(
                self._client.execute(command, dict(arguments) if arguments else None), timeout
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
                description="QEMU is alive but its main loop does not answer, or it is gone",
                evidence=self.log_path,
            ) from error
        except ClientError as error:
            raise MachineDied(
                f"{self.name}: the QMP connection ended during {command}",
                seen=str(error),
                evidence=self.log_path,
            ) from error
        self._note("<", {"return": answer})
        return answer

    def hmp(self, line: str, *, timeout: float = 60) -> str:
        """Execute a human monitor command and return its text with plain line ends."""
        text = self.execute("human-monitor-command", {"command-line": line}, timeout=timeout)
        return str(text).replace("\r\n", "\n")

    def mark(self) -> int:
        """Return a position in the stream of events, for `wait_event`."""
        with self._changed:
            return self._seen

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
        """
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
            for guard in guards:
                guard()

    def close(self) -> None:
        """End the session; never raises for a peer that is gone."""
        try:
            _blocking(self._client.disconnect(), 5)
        except (ClientError, concurrent.futures.TimeoutError, OSError, EOFError) as error:
            log.debug("%s: QMP ended with %r", self.name, error)
        with self._lock:
            self._log.close()
