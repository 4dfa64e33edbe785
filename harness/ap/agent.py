"""The agent of an AP host: files in batches, programs, any number at once, over one stream."""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence

from harness.ap.agent_channel import AgentChannel
from harness.ap.agent_wire import (
    FileAnswer,
    FileRequest,
    Frame,
    FrameReader,
    Kind,
    decode_answers,
    encode_batch,
    encode_words,
)
from harness.errors import ParseError, Unreachable
from harness.wait import Guard, hear_guards

log = logging.getLogger(__name__)

_LOOK = 0.25
"""Seconds between two looks at the guards while an answer is waited for."""


class Pending:
    """A batch that is being worked on."""

    def __init__(self, agent: Agent, channel: int, count: int, what: str) -> None:
        self._agent = agent
        self._channel = channel
        self._count = count
        self._what = what
        self._done = threading.Event()
        self._content = b""
        self._answers: list[FileAnswer] | None = None

    @property
    def done(self) -> bool:
        """Say whether the answer is here."""
        return self._done.is_set()

    def wait(self, *, timeout: float) -> list[FileAnswer]:
        """Return the answers, one for each request.

        :raise Unreachable: not in *timeout* seconds; the kernel may still work on it.
        """
        self._agent.wait_for(self._done, f"no answer to {self._what}", timeout)
        if self._answers is None:
            self._answers = decode_answers(self._content, self._count)
        return self._answers

    def take(self, frame: Frame) -> bool:
        """Take a frame of our channel; say whether it was the last."""
        self._content = frame.content
        self._done.set()
        return True


class Agent:
    """One session with an agent. For any number of threads.

    :param stream: connected to it; ours from here on.
    :param guards: called while waiting; they raise when the system is known to be dead.
    """

    def __init__(self, stream: socket.socket, *, name: str, guards: Sequence[Guard] = ()) -> None:
        self.name = name
        self._stream = stream
        self._guards = tuple(guards)
        self._sending = threading.Lock()
        self._table = threading.Lock()
        self._takers: dict[int, Callable[[Frame], bool]] = {}
        self._channels: set[AgentChannel] = set()
        self._last = 0
        self._hello = threading.Event()
        self._greeting = b""
        self._end = ""
        self._thread = threading.Thread(target=self._read, name=f"agent-{name}", daemon=True)
        self._thread.start()

    def greet(self, *, timeout: float) -> None:
        """Wait until the agent answers; what it did for others before us is over then.

        :raise Unreachable: it does not in *timeout* seconds.
        """
        self._greeting = secrets.token_bytes(16)
        self._send(Frame(0, Kind.HELLO, self._greeting))
        self.wait_for(self._hello, "the agent does not answer", timeout)

    def check(self) -> None:
        """Raise if the system or the connection to it is gone. A guard for waits."""
        for guard in self._guards:
            guard()
        if self._end:
            hear_guards(self.name, self._guards)
            raise Unreachable(f"{self.name}: the connection to its agent ended", seen=self._end)

    def close(self) -> None:
        """Hang up; programs that run in its channels go on until the next one greets."""
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._stream.close()

    # -- files ----------------------------------------------------------------------------------

    def begin(self, requests: Sequence[FileRequest]) -> Pending:
        """Have *requests* done in order, one after the other; do not wait for it."""
        number = self._new_number()
        what = f"{requests[0].kind} {requests[0].path}" if requests else "nothing"
        if len(requests) > 1:
            what += f" and {len(requests) - 1} more"
        pending = Pending(self, number, len(requests), what)
        with self._table:
            self._takers[number] = pending.take
        self._send(Frame(number, Kind.BATCH, encode_batch(requests)))
        return pending

    def batch(self, requests: Sequence[FileRequest], *, timeout: float = 60) -> list[FileAnswer]:
        """Have *requests* done in order; return what came of each.

        :raise Unreachable: no answer in *timeout* seconds.
        """
        return self.begin(requests).wait(timeout=timeout)

    # -- programs ---------------------------------------------------------------------------------

    def start(self, words: Sequence[str]) -> AgentChannel:
        """Start a program; it is gone when it has ended, or with the next greeting."""
        channel = AgentChannel(self._new_number(), self._send, self.check)
        with self._table:
            self._takers[channel.number] = channel.take
            self._channels.add(channel)
        self._send(Frame(channel.number, Kind.START, encode_words(words)))
        return channel

    # -- inside -----------------------------------------------------------------------------------

    def wait_for(self, event: threading.Event, what: str, timeout: float) -> None:
        """Wait for *event* with an eye on the guards.

        :raise Unreachable: *timeout* seconds passed, or the connection ended.
        """
        deadline = time.monotonic() + timeout
        while not event.wait(min(_LOOK, max(deadline - time.monotonic(), 0))):
            self.check()
            if time.monotonic() >= deadline:
                raise Unreachable(
                    f"{self.name}: {what} within {timeout:g} s",
                    hint="console.log and gdb.log beside this test's evidence say what it does",
                )

    def _new_number(self) -> int:
        with self._table:
            self._last += 1
            return self._last

    def _send(self, frame: Frame) -> None:
        if self._end:
            self.check()
        with self._sending:
            try:
                self._stream.sendall(frame.encoded())
            except OSError as error:
                hear_guards(self.name, self._guards)
                raise Unreachable(
                    f"{self.name}: the connection to its agent ended", seen=str(error)
                ) from error

    def _read(self) -> None:
        reader, end = FrameReader(), "it hung up"
        try:
            while data := self._stream.recv(1 << 16):
                for frame in reader.feed(data):
                    self._dispatch(frame)
        except (OSError, ParseError) as error:
            end = str(error)
        finally:
            self._end = end
            with self._table:
                channels = tuple(self._channels)
            for channel in channels:
                channel.cut_off()

    def _dispatch(self, frame: Frame) -> None:
        if frame.kind is Kind.HELLO:
            if frame.content == self._greeting:
                self._hello.set()
            return
        with self._table:
            taker = self._takers.get(frame.channel)
        if taker is None:
            log.debug("%s: a frame for nobody: %s %d", self.name, frame.kind, frame.channel)
            return
        if taker(frame):
            with self._table:
                self._takers.pop(frame.channel, None)
                self._channels = {one for one in self._channels if one.number != frame.channel}
