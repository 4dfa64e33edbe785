"""A vfio-user client: what QEMU does, from Python, without QEMU.

For tests of devices, and to try a device by hand::

    with serve(Adder()) as served, Client(served.socket) as client:
        client.write(0, 0, b"\\x05\\0\\0\\0")
        assert client.read(0, 0, 4) == b"\\x05\\0\\0\\0"

One thread. While it waits for a reply it answers what the server asks of its memory.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from harness.device import protocol
from harness.device.protocol import Command, RequestFailed, name_of
from harness.device.wire import Message, Wire
from harness.errors import WaitTimeout
from harness.model.address import AddressRange

TIMEOUT: Final = 10.0
"""Seconds a server has to answer."""


@dataclass(frozen=True, slots=True)
class RegionInfo:
    """What a server says of one region; ``fd`` is ours to close, -1 if there is none."""

    index: int
    flags: int
    size: int
    offset: int
    capabilities: tuple[int, ...]
    """Ids, in the order of the list."""
    areas: tuple[AddressRange, ...]
    """What can be mapped: these, or all of it if there are none and ``mappable``."""
    fd: int

    @property
    def mappable(self) -> bool:
        """Say whether any of it can be mapped."""
        return bool(self.flags & protocol.REGION_MMAP)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; the descriptors are ours to close."""

    flags: int
    error: int
    payload: bytes
    fds: tuple[int, ...] = ()

    @property
    def failed(self) -> bool:
        """Say whether it is an error."""
        return bool(self.flags & protocol.FLAG_ERROR)


class Client:
    """A connection to a server; a context manager.

    :param negotiate: agree on a version at once.
    """

    def __init__(
        self, path: Path, *, negotiate: bool = True, max_fds: int = protocol.MAX_FDS
    ) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(os.fspath(path))
        except OSError:
            connection.close()
            raise
        self.wire = Wire(connection)
        self.memory: dict[int, bytearray] = {}
        """What the server may read and write by message, by IO virtual address."""
        self.limits = protocol.Limits()
        self.requests: list[int] = []
        """Commands that the server sent."""
        self._ids = itertools.count(1)
        if negotiate:
            payload = protocol.version_payload(max_fds=max_fds)
            _, _, self.limits = protocol.read_version(self.ask(Command.VERSION, payload))

    def close(self) -> None:
        """Go away."""
        self.wire.shut()
        self.wire.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Messages.

    def exchange(
        self, command: int, payload: bytes = b"", fds: Sequence[int] = (), flags: int = 0
    ) -> Reply:
        """Send a command and return its reply, which may be an error.

        :raise PeerGone: the server closed the connection.
        :raise WaitTimeout: it did not answer.
        """
        number = next(self._ids) & 0xFFFF
        self.wire.send(number, command, payload, flags=flags, fds=fds)
        return self.reply_to(number, command)

    def reply_to(self, number: int, command: int) -> Reply:
        """Return the reply to message *number*; what the server asks meanwhile is answered."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            message = self.wire.receive(deadline)
            if message is None:
                raise WaitTimeout(f"{name_of(command)}: no reply within {TIMEOUT:g} s")
            if message.is_reply and message.id == number:
                return Reply(message.flags, message.error, message.payload, tuple(message.fds))
            self._serve(message)

    def ask(self, command: int, payload: bytes = b"", fds: Sequence[int] = ()) -> bytes:
        """Send a command and return the payload of its reply; descriptors in it are closed.

        :raise RequestFailed: the reply is an error.
        """
        reply = self.exchange(command, payload, fds)
        for fd in reply.fds:
            os.close(fd)
        if reply.failed:
            raise RequestFailed(command, reply.error)
        return reply.payload

    def post(self, command: int, payload: bytes = b"") -> None:
        """Send a command that wants no reply."""
        self.wire.send(next(self._ids) & 0xFFFF, command, payload, flags=protocol.FLAG_NO_REPLY)

    def serve_for(self, seconds: float) -> bool:
        """Answer one thing the server asks; False if it asks nothing for so long."""
        message = self.wire.receive(time.monotonic() + seconds)
        if message is None:
            return False
        self._serve(message)
        return True

    # What a client says.

    def info(self) -> tuple[int, int, int]:
        """Return flags, number of regions and of interrupt types."""
        size = protocol.DEVICE_INFO.size
        reply = self.ask(Command.GET_INFO, protocol.DEVICE_INFO.pack(size, 0, 0, 0))
        _, flags, regions, irqs = protocol.DEVICE_INFO.unpack(reply)
        return flags, regions, irqs

    def region_info(self, index: int) -> RegionInfo:
        """Return what there is to know of a region, asking twice as QEMU does."""
        argsz = protocol.REGION_INFO.size
        while True:
            payload = protocol.REGION_INFO.pack(argsz, 0, index, 0, 0, 0)
            reply = self.exchange(Command.GET_REGION_INFO, payload)
            if reply.failed:
                raise RequestFailed(Command.GET_REGION_INFO, reply.error)
            head = protocol.REGION_INFO.unpack_from(reply.payload)
            full, flags, _, cap_offset, size, offset = head
            if full > argsz:
                for fd in reply.fds:
                    os.close(fd)
                argsz = full
                continue
            caps = _capabilities(reply.payload, cap_offset if flags & protocol.REGION_CAPS else 0)
            fd = reply.fds[0] if reply.fds else -1
            areas = _areas(caps.get(protocol.CAP_SPARSE_MMAP, b""))
            return RegionInfo(index, flags, size, offset, tuple(caps), areas, fd)

    def read(self, region: int, offset: int, count: int) -> bytes:
        """Read from a region."""
        reply = self.ask(Command.REGION_READ, protocol.ACCESS.pack(offset, region, count))
        return reply[protocol.ACCESS.size :]

    def write(self, region: int, offset: int, data: bytes, *, post: bool = False) -> None:
        """Write to a region; *post*: without waiting for it."""
        payload = protocol.ACCESS.pack(offset, region, len(data)) + data
        if post:
            self.post(Command.REGION_WRITE, payload)
        else:
            self.ask(Command.REGION_WRITE, payload)

    def write_many(self, writes: Sequence[tuple[int, int, bytes]]) -> None:
        """Write (region, offset, data) each, in one message."""
        body = b"".join(
            protocol.MULTI_WRITE.pack(offset, region, len(data), data)
            for region, offset, data in writes
        )
        self.ask(Command.REGION_WRITE_MULTI, protocol.MULTI.pack(len(writes)) + body)

    def dma_map(
        self,
        address: int,
        size: int,
        *,
        fd: int | None = None,
        offset: int = 0,
        flags: int = protocol.DMA_READABLE | protocol.DMA_WRITABLE,
    ) -> None:
        """Let the device touch *size* bytes at *address*; without *fd*, those in `memory`."""
        payload = protocol.DMA_MAP.pack(protocol.DMA_MAP.size, flags, offset, address, size)
        self.ask(Command.DMA_MAP, payload, () if fd is None else (fd,))
        if fd is None:
            self.memory[address] = bytearray(size)

    def dma_unmap(self, address: int, size: int, *, flags: int = 0) -> None:
        """Take that back."""
        payload = protocol.DMA_UNMAP.pack(protocol.DMA_UNMAP.size, flags, address, size)
        self.ask(Command.DMA_UNMAP, payload)
        self.memory.pop(address, None)

    def irq_info(self, index: int) -> tuple[int, int]:
        """Return flags and number of vectors of an interrupt type."""
        size = protocol.IRQ_INFO.size
        reply = self.ask(Command.GET_IRQ_INFO, protocol.IRQ_INFO.pack(size, 0, index, 0))
        _, flags, _, count = protocol.IRQ_INFO.unpack(reply)
        return flags, count

    def set_irqs(
        self,
        index: int,
        flags: int,
        start: int = 0,
        count: int = 1,
        *,
        data: bytes = b"",
        fds: Sequence[int] = (),
    ) -> None:
        """Set up, mask, unmask or trigger interrupts."""
        head = protocol.IRQ_SET.pack(protocol.IRQ_SET.size + len(data), flags, index, start, count)
        self.ask(Command.SET_IRQS, head + data, fds)

    def reset(self) -> None:
        """Reset the device."""
        self.ask(Command.RESET)

    # What a client is asked.

    def _serve(self, message: Message) -> None:
        try:
            if message.is_reply:
                return  # to a message that we posted
            self.requests.append(message.command)
            self._answer(message)
        finally:
            message.close()

    def _answer(self, message: Message) -> None:
        address, count = protocol.fields(protocol.DMA_ACCESS, message.payload, "DMA")
        for start, memory in self.memory.items():
            at = address - start
            if not 0 <= at <= at + count <= len(memory):
                continue
            head = message.payload[: protocol.DMA_ACCESS.size]
            if message.command == Command.DMA_WRITE:
                memory[at : at + count] = message.payload[protocol.DMA_ACCESS.size :]
            else:
                head += bytes(memory[at : at + count])
            self._reply(message, head)
            return
        self._reply(message, error=errno.EFAULT)

    def _reply(self, message: Message, payload: bytes = b"", error: int = 0) -> None:
        flags = protocol.TYPE_REPLY | (protocol.FLAG_ERROR if error else 0)
        self.wire.send(message.id, message.command, payload, flags=flags, error=error)


def _capabilities(payload: bytes, offset: int) -> dict[int, bytes]:
    """Return all that follows the header of each capability of a region, by id."""
    found: dict[int, bytes] = {}
    while offset:
        kind, _, offset_of_next = protocol.CAPABILITY.unpack_from(payload, offset)
        if kind in found:
            break  # a list that bites its tail
        found[kind] = payload[offset + protocol.CAPABILITY.size :]
        offset = offset_of_next
    return found


def _areas(body: bytes) -> tuple[AddressRange, ...]:
    """Return the areas of the sparse capability."""
    if not body:
        return ()
    count, _ = protocol.SPARSE.unpack_from(body)
    each = body[protocol.SPARSE.size :][: count * protocol.AREA.size]
    return tuple(AddressRange(*area) for area in protocol.AREA.iter_unpack(each))
