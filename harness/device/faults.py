"""Servers that misbehave: late, silent, wrong, closing, sending garbage, storming, trespassing.

A fault is an act and a choice of the messages it happens to; everything else is answered as it
should be::

    with serve(Adder(), session=faulty(When(Command.REGION_READ, region=0), late(0.5))) as served:
        ...

`storm` and `trespass` are faults of the device itself and need no session of their own.
"""

from __future__ import annotations

import os
import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from harness.device import protocol
from harness.device.device import Device
from harness.device.protocol import HEADER, Command, PeerGone, Refused
from harness.device.server import SessionMaker
from harness.device.session import Answer, Session
from harness.device.wire import Message, Wire

_REGION_AT = {
    Command.REGION_READ: 8,
    Command.REGION_WRITE: 8,
    Command.GET_REGION_INFO: 8,
    Command.GET_IRQ_INFO: 8,
    Command.SET_IRQS: 8,
}
"""Where the payload of a message has its region or interrupt type."""


@dataclass(frozen=True, slots=True)
class When:
    """Which messages a fault happens to."""

    command: int
    region: int | None = None
    """Only this region, or interrupt type."""
    skip: int = 0
    """The first so many are answered well."""
    times: int | None = None
    """So many times, then never again."""

    def fits(self, message: Message) -> bool:
        """Say whether *message* is of the kind."""
        if message.command != self.command:
            return False
        at = _REGION_AT.get(Command(self.command))
        if self.region is None or at is None:
            return True
        return int.from_bytes(message.payload[at : at + 4], "little") == self.region


Act = Callable[["FaultySession", Message, Answer], None]
"""What is done instead of sending the answer."""


class FaultySession(Session):
    """A session that answers some messages as no server should."""

    def __init__(
        self,
        wire: Wire,
        device: Device,
        errors: deque[Refused],
        failures: deque[Exception],
        *,
        when: When,
        act: Act,
    ) -> None:
        super().__init__(wire, device, errors, failures)
        self.ended = threading.Event()
        self._when = when
        self._act = act
        self._seen = 0

    def deliver(self, message: Message, answer: Answer) -> None:
        """Send the answer, or do what the fault does."""
        if self._when.fits(message):
            self._seen += 1
            done = self._seen - self._when.skip
            if done > 0 and (self._when.times is None or done <= self._when.times):
                self._act(self, message, answer)
                return
        self.well(message, answer)

    def well(self, message: Message, answer: Answer) -> None:
        """Send the answer as it should be."""
        super().deliver(message, answer)

    def stop(self) -> None:
        """End it; a late answer is late no more."""
        self.ended.set()
        super().stop()


def faulty(when: When, act: Act) -> SessionMaker:
    """Return what `serve` needs to make sessions with this fault."""

    def make(
        wire: Wire, device: Device, errors: deque[Refused], failures: deque[Exception]
    ) -> Session:
        return FaultySession(wire, device, errors, failures, when=when, act=act)

    return make


def late(seconds: float) -> Act:
    """Answer well, but late."""

    def act(session: FaultySession, message: Message, answer: Answer) -> None:
        session.ended.wait(seconds)
        session.well(message, answer)

    return act


def silent() -> Act:
    """Never answer."""
    return lambda session, message, answer: None


def fails(number: int) -> Act:
    """Answer with an error."""
    return lambda session, message, answer: session.well(message, Answer(error=number))


def altered(change: Callable[[bytes], bytes]) -> Act:
    """Answer with another payload; the size in the header follows it."""
    return lambda session, message, answer: session.well(
        message, replace(answer, payload=change(answer.payload))
    )


def without_descriptors() -> Act:
    """Answer, but leave out the descriptors that belong to it."""
    return lambda session, message, answer: session.well(message, replace(answer, fds=()))


def with_descriptors(count: int) -> Act:
    """Answer with *count* descriptors that nobody asked for."""

    def act(session: FaultySession, message: Message, answer: Answer) -> None:
        fds = [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(count)]
        try:
            session.well(message, replace(answer, fds=fds))
        finally:
            for fd in fds:
                os.close(fd)

    return act


def to_another() -> Act:
    """Answer a message that was never sent."""
    return lambda session, message, answer: session.well(
        replace(message, id=message.id ^ 0x5555), answer
    )


def twice() -> Act:
    """Answer well, two times."""

    def act(session: FaultySession, message: Message, answer: Answer) -> None:
        session.well(message, answer)
        session.well(message, answer)

    return act


def closes() -> Act:
    """Close the connection instead of answering."""

    def act(session: FaultySession, message: Message, answer: Answer) -> None:
        raise PeerGone("the fault closes the connection")

    return act


def closes_midway(sent: int = HEADER.size // 2) -> Act:
    """Send the first bytes of the answer, then close the connection."""

    def act(session: FaultySession, message: Message, answer: Answer) -> None:
        session.wire.send_bytes(_packed(message, answer)[:sent])
        raise PeerGone("the fault closes the connection")

    return act


def stalls_midway(sent: int, seconds: float) -> Act:
    """Send the first bytes of the answer, and the others so many seconds later."""

    def act(session: FaultySession, message: Message, answer: Answer) -> None:
        data = _packed(message, answer)
        session.wire.send_bytes(data[:sent])
        session.ended.wait(seconds)
        session.wire.send_bytes(data[sent:])

    return act


def announces(size: int) -> Act:
    """Send the answer with another size in its header."""

    def act(session: FaultySession, message: Message, answer: Answer) -> None:
        data = bytearray(_packed(message, answer))
        data[4:8] = size.to_bytes(4, "little")
        session.wire.send_bytes(bytes(data))

    return act


def garbage(size: int = 256, seed: int = 0) -> Act:
    """Send bytes of chance instead of the answer; the same ones each time."""
    return lambda session, message, answer: session.wire.send_bytes(
        random.Random(seed).randbytes(size)
    )


def asks(command: int, payload: bytes = b"", flags: int = 0) -> Act:
    """Send a command of our own before the answer, and do not wait for its reply."""

    def act(session: FaultySession, message: Message, answer: Answer) -> None:
        session.wire.send(0x7777, command, payload, flags=flags)
        session.well(message, answer)

    return act


def storm(device: Device, vector: int, count: int) -> int:
    """Send *count* interrupts as fast as we can; return how many were taken."""
    return sum(device.interrupt(vector) for _ in range(count))


def trespass(device: Device, address: int, count: int, *, write: bool = False) -> bytes:
    """Ask the client for memory by message, mapped or not: our own check is left out.

    :raise HarnessError: the client refuses, which it should where nothing is mapped.
    """
    link = device.link
    if link is None:
        raise PeerGone("no client is connected")
    if write:
        link.dma_write(address, bytes(count))
        return b""
    return link.dma_read(address, count)


def _packed(message: Message, answer: Answer) -> bytes:
    size = HEADER.size + len(answer.payload)
    flags = protocol.TYPE_REPLY | (protocol.FLAG_ERROR if answer.error else 0)
    return HEADER.pack(message.id, message.command, size, flags, answer.error) + answer.payload
