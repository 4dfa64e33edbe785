"""One client of a device: its messages answered one by one, in order.

Source of each answer: QEMU ``docs/interop/vfio-user.rst``; where that is silent, what
``libvfio-user`` does.
"""

from __future__ import annotations

import errno
import itertools
import logging
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from harness.device import protocol
from harness.device.device import Device
from harness.device.doorbells import Doorbells
from harness.device.protocol import Command, PeerGone, Refused, RequestFailed, name_of
from harness.device.spec import BarSpec
from harness.device.wire import Message, Wire
from harness.errors import HarnessError, WaitTimeout

log = logging.getLogger(__name__)

CALL_TIMEOUT: Final = 3.0
"""Seconds a client has to answer; less than the 5 s after which QEMU gives up on us."""

Reply = tuple[bytes, Sequence[int]]
"""Payload, and descriptors to send with it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a message is answered with."""

    payload: bytes = b""
    fds: Sequence[int] = ()
    error: int = 0
    """An ``errno`` value; then there is nothing else."""


class Session:
    """Serves *device* to one client until that goes away.

    :param errors: where to note what was wrong with the client's messages.
    :param failures: where to note exceptions of the device's own code.
    """

    def __init__(
        self,
        wire: Wire,
        device: Device,
        errors: deque[Refused],
        failures: deque[Exception],
    ) -> None:
        self.wire = wire
        self.device = device
        self.limits = protocol.Limits()
        self.negotiated = False
        self._errors = errors
        self._failures = failures
        self._ids = itertools.count(1)
        self._waiting: dict[int, Message | None] = {}
        self._answered = threading.Condition()
        self._thread = threading.get_ident()
        self._gone = False
        self._doorbells = Doorbells(device)
        self._handlers: dict[int, Callable[[bytes, list[int]], Reply]] = {
            Command.VERSION: self._version,
            Command.DMA_MAP: self._dma_map,
            Command.DMA_UNMAP: self._dma_unmap,
            Command.GET_INFO: self._get_info,
            Command.GET_REGION_INFO: self._get_region_info,
            Command.GET_REGION_IO_FDS: self._get_region_io_fds,
            Command.GET_IRQ_INFO: self._get_irq_info,
            Command.SET_IRQS: self._set_irqs,
            Command.REGION_READ: self._region_read,
            Command.REGION_WRITE: self._region_write,
            Command.REGION_WRITE_MULTI: self._region_write_multi,
            Command.RESET: self._reset,
            Command.DIRTY_PAGES: self._no_migration,
            Command.DEVICE_FEATURE: self._no_migration,
            Command.MIG_DATA_READ: self._no_migration,
            Command.MIG_DATA_WRITE: self._no_migration,
        }

    def run(self) -> None:
        """Answer messages until the client is gone or cannot be trusted."""
        self._thread = threading.get_ident()
        try:
            while True:
                self._do_later()
                self._wait_for_events()
                self._take(self.wire.receive())
        except PeerGone as gone:
            log.debug("%s", gone)
        except Refused as refused:
            self._note(refused)
        finally:
            self._end()

    def call(self, command: int, payload: bytes, timeout: float = CALL_TIMEOUT) -> bytes:
        """Ask the client something, and return the payload of its answer.

        Messages that come in between are answered, so a handler can run in a handler.

        :raise RequestFailed: it answered with an error.
        :raise WaitTimeout: it did not answer in time.
        :raise PeerGone: it went away.
        """
        number = next(self._ids) & 0xFFFF
        deadline = time.monotonic() + timeout
        self._waiting[number] = None
        try:
            self.wire.send(number, command, payload)
            answer = self._answer_of(number, deadline)
        finally:
            del self._waiting[number]
        if answer is None:
            raise WaitTimeout(
                f"{name_of(command)}: the client did not answer within {timeout:g} s",
                hint="QEMU answers only when it does not wait for us: use Device.later()",
            )
        if answer.flags & protocol.FLAG_ERROR:
            raise RequestFailed(command, answer.error)
        return answer.payload

    def stop(self) -> None:
        """End it, from any thread."""
        self.wire.shut()

    def dma_read(self, address: int, count: int) -> bytes:
        """Read the client's memory by message; not checked against what is mapped.

        :raise HarnessError: the client refuses, or says nonsense.
        """
        parts = []
        for at, length in self._chunks(address, count):
            reply = self.call(Command.DMA_READ, protocol.DMA_ACCESS.pack(at, length))
            data = reply[protocol.DMA_ACCESS.size :]
            if len(data) != length:
                raise HarnessError(f"DMA_READ of {at:#x}: {len(data)} bytes came, not {length}")
            parts.append(data)
        return b"".join(parts)

    def dma_write(self, address: int, data: bytes) -> None:
        """Write to the client's memory by message; not checked against what is mapped.

        :raise HarnessError: the client refuses.
        """
        for at, length in self._chunks(address, len(data)):
            piece = data[at - address : at - address + length]
            self.call(Command.DMA_WRITE, protocol.DMA_ACCESS.pack(at, length) + piece)

    def _chunks(self, address: int, count: int) -> list[tuple[int, int]]:
        most = max(1, min(self.limits.max_transfer, protocol.MAX_TRANSFER))
        return [
            (at, min(most, address + count - at)) for at in range(address, address + count, most)
        ]

    # Receiving.

    def _answer_of(self, number: int, deadline: float) -> Message | None:
        if threading.get_ident() == self._thread:
            while self._waiting[number] is None:
                message = self.wire.receive(deadline)
                if message is None:
                    return None
                self._take(message)
            return self._waiting[number]
        with self._answered:
            self._answered.wait_for(
                lambda: self._waiting[number] is not None or self._gone,
                max(0.0, deadline - time.monotonic()),
            )
            if self._gone:
                raise PeerGone("the client went away before it answered")
            return self._waiting[number]

    def _wait_for_events(self) -> None:
        """Serve eventfds that the client signals, until there is a message.

        Costs nothing where there are none: receiving waits by itself.
        """
        watched = self._doorbells.fds | self._unmask_fds()
        if not watched:
            return
        poll = select.poll()
        poll.register(self.wire.fileno(), select.POLLIN)
        for fd in watched:
            poll.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            for fd in ready & watched:
                self._ring(fd)
                for irq in self.device.irqs.types:
                    if irq.unmask_fd == fd:
                        self.device.irqs.unmask_by_fd(irq)
            self._do_later()
            if self.wire.fileno() in ready:
                return

    def _unmask_fds(self) -> set[int]:
        return {irq.unmask_fd for irq in self.device.irqs.types if irq.unmask_fd is not None}

    def _ring(self, fd: int) -> None:
        try:
            self._doorbells.rung(fd)
        except PeerGone:
            raise
        except Exception as failure:
            self._keep(failure)

    def _do_later(self) -> None:
        while True:  # what comes after work that failed is done all the same
            try:
                self.device.do_later()
            except PeerGone:
                raise
            except Exception as failure:
                self._keep(failure)
            else:
                return

    def _keep(self, failure: Exception) -> None:
        log.error("the device failed", exc_info=failure)
        self._failures.append(failure)

    def _take(self, message: Message | None) -> None:
        assert message is not None  # only with a deadline
        try:
            if message.is_reply:
                self._take_reply(message)
            else:
                self._answer(message)
        finally:
            message.close()

    def _take_reply(self, message: Message) -> None:
        if message.id not in self._waiting:
            self._note(Refused(f"a reply to {name_of(message.command)} that nobody asked"))
            return
        with self._answered:
            self._waiting[message.id] = message
            self._answered.notify_all()

    def _answer(self, message: Message) -> None:
        try:
            payload, fds = self._handle(message)
        except Refused as refused:
            self._note(refused)  # first: who has the answer may look for it
            if message.wants_reply:
                self.deliver(message, Answer(error=refused.number))
            if refused.fatal:
                raise PeerGone(f"closed by us: {refused}") from refused
            return
        if message.wants_reply:
            self.deliver(message, Answer(payload, fds))

    def deliver(self, message: Message, answer: Answer) -> None:
        """Send the answer to a message; servers that misbehave do it here.

        :raise PeerGone: the client has gone.
        """
        flags = protocol.TYPE_REPLY | (protocol.FLAG_ERROR if answer.error else 0)
        self.wire.send(
            message.id,
            message.command,
            answer.payload,
            flags=flags,
            error=answer.error,
            fds=answer.fds,
        )

    def _handle(self, message: Message) -> Reply:
        command = message.command
        handler = self._handlers.get(command)
        if handler is None:
            raise Refused(f"{name_of(command)}: no such command to a server")
        if not self.negotiated and command != Command.VERSION:
            raise Refused(f"{name_of(command)} before VERSION", fatal=True)
        try:
            return handler(message.payload, message.fds)
        except (Refused, PeerGone):
            raise
        except Exception as failure:
            # The device's own code; its client hears of an I/O error, its author of the rest.
            log.exception("%s: the device failed", name_of(command))
            self._failures.append(failure)
            raise Refused(f"{name_of(command)}: the device failed: {failure}", errno.EIO) from None

    def _note(self, refused: Refused) -> None:
        log.debug("peer: %s", refused)
        self._errors.append(refused)

    def _end(self) -> None:
        with self._answered:
            self._gone = True
            self._answered.notify_all()
        self._doorbells.close()
        self.device.let_go()
        if self.negotiated:
            self.device.disconnected()

    # One method for each command.

    def _version(self, payload: bytes, fds: list[int]) -> Reply:
        if self.negotiated:
            raise Refused("VERSION: it was agreed on already")
        major, minor, limits = protocol.read_version(payload)
        if major != protocol.MAJOR:
            raise Refused(f"VERSION: {major}.{minor}, we speak {protocol.MAJOR}.x", fatal=True)
        self.limits = limits
        self.negotiated = True
        self.device.link = self
        self.device.connected()
        return protocol.version_payload(minor=min(minor, protocol.MINOR)), ()

    def _dma_map(self, payload: bytes, fds: list[int]) -> Reply:
        argsz, flags, offset, address, size = protocol.fields(protocol.DMA_MAP, payload, "DMA_MAP")
        _check_argsz("DMA_MAP", argsz, protocol.DMA_MAP.size)
        self.device.dma.add(address, size, flags, offset, fds)
        return b"", ()

    def _dma_unmap(self, payload: bytes, fds: list[int]) -> Reply:
        argsz, flags, address, size = protocol.fields(protocol.DMA_UNMAP, payload, "DMA_UNMAP")
        _check_argsz("DMA_UNMAP", argsz, protocol.DMA_UNMAP.size)
        if flags & protocol.UNMAP_DIRTY_BITMAP:
            raise Refused("DMA_UNMAP: dirty pages are not tracked", errno.ENOTSUP)
        if flags & ~protocol.UNMAP_ALL:
            raise Refused(f"DMA_UNMAP: flags {flags:#x}")
        if flags & protocol.UNMAP_ALL:
            if address or size:
                raise Refused("DMA_UNMAP of all: address and size must be 0")
            self.device.dma.clear()
        else:
            self.device.dma.remove(address, size)
        return payload[: protocol.DMA_UNMAP.size], ()

    def _get_info(self, payload: bytes, fds: list[int]) -> Reply:
        size = protocol.DEVICE_INFO.size
        argsz, _, _, _ = protocol.fields(protocol.DEVICE_INFO, payload, "GET_INFO")
        _check_argsz("GET_INFO", argsz, size)
        flags = protocol.DEVICE_PCI | (protocol.DEVICE_RESET if self.device.resettable else 0)
        return protocol.DEVICE_INFO.pack(size, flags, protocol.REGIONS, protocol.IRQS), ()

    def _get_region_info(self, payload: bytes, fds: list[int]) -> Reply:
        base = protocol.REGION_INFO.size
        argsz, _, index, _, _, _ = protocol.fields(
            protocol.REGION_INFO, payload, "GET_REGION_INFO"
        )
        _check_argsz("GET_REGION_INFO", argsz, base)
        if index >= protocol.REGIONS:
            raise Refused(f"GET_REGION_INFO: there is no region {index}")
        size = self.device.region_size(index)
        bar = self.device.bar(index)
        flags = _region_flags(index, size)
        caps = b""
        send: Sequence[int] = ()
        if bar is not None and bar.is_direct:
            flags |= protocol.REGION_MMAP
            send = [self.device.region(index).fd]
        if bar is not None:
            caps = self._region_capabilities(bar)
        full = base + len(caps)
        where = base if caps else 0
        if caps:
            flags |= protocol.REGION_CAPS
        if argsz < full:  # the client asks again with a larger buffer, and gets the rest then
            caps, send = b"", ()
        head = protocol.REGION_INFO.pack(full, flags, index, where, size, 0)
        return head + caps, send

    def _region_capabilities(self, bar: BarSpec) -> bytes:
        """Return the capabilities of the region of *bar*, linked; b"" if it has none."""
        found: list[tuple[int, bytes]] = []
        if isinstance(bar.direct, tuple) and bar.direct:
            areas = [protocol.AREA.pack(area.start, area.size) for area in bar.direct]
            head = protocol.SPARSE.pack(len(areas), 0)
            found.append((protocol.CAP_SPARSE_MMAP, head + b"".join(areas)))
        msix = self.device.msix
        if msix is not None and msix.mappable and msix.table_bar == bar.index:
            found.append((protocol.CAP_MSIX_MAPPABLE, b""))
        caps = b""
        for left, (kind, body) in zip(range(len(found), 0, -1), found, strict=True):
            end = protocol.REGION_INFO.size + len(caps) + protocol.CAPABILITY.size + len(body)
            caps += protocol.CAPABILITY.pack(kind, 1, end if left > 1 else 0) + body
        return caps

    def _get_region_io_fds(self, payload: bytes, fds: list[int]) -> Reply:
        argsz, flags, index, count = protocol.fields(protocol.IO_FDS, payload, "GET_REGION_IO_FDS")
        _check_argsz("GET_REGION_IO_FDS", argsz, protocol.IO_FDS.size)
        if flags or count or index >= protocol.REGIONS:
            raise Refused(f"GET_REGION_IO_FDS: region {index}, flags {flags:#x}, count {count}")
        return self._doorbells.describe(index, argsz, self.limits.max_fds)

    def _get_irq_info(self, payload: bytes, fds: list[int]) -> Reply:
        size = protocol.IRQ_INFO.size
        argsz, _, index, _ = protocol.fields(protocol.IRQ_INFO, payload, "GET_IRQ_INFO")
        _check_argsz("GET_IRQ_INFO", argsz, size)
        if index >= protocol.IRQS:
            raise Refused(f"GET_IRQ_INFO: there is no interrupt type {index}")
        irq = self.device.irqs.types[index]
        return protocol.IRQ_INFO.pack(size, irq.flags, index, irq.count), ()

    def _set_irqs(self, payload: bytes, fds: list[int]) -> Reply:
        argsz, flags, index, start, count = protocol.fields(protocol.IRQ_SET, payload, "SET_IRQS")
        _check_argsz("SET_IRQS", argsz, protocol.IRQ_SET.size)
        data = payload[protocol.IRQ_SET.size :]
        self.device.irqs.set(flags, index, start, count, data, fds)
        return b"", ()

    def _region_read(self, payload: bytes, fds: list[int]) -> Reply:
        offset, region, count = protocol.fields(protocol.ACCESS, payload, "REGION_READ")
        self._check_access("REGION_READ", region, offset, count)
        data = self.device.region_read(region, offset, count)
        return payload[: protocol.ACCESS.size] + data, ()

    def _region_write(self, payload: bytes, fds: list[int]) -> Reply:
        offset, region, count = protocol.fields(protocol.ACCESS, payload, "REGION_WRITE")
        self._check_access("REGION_WRITE", region, offset, count)
        data = payload[protocol.ACCESS.size :]
        if len(data) != count:
            raise Refused(f"REGION_WRITE: {len(data)} bytes of data, {count} announced")
        self.device.region_write(region, offset, data)
        return payload[: protocol.ACCESS.size], ()

    def _region_write_multi(self, payload: bytes, fds: list[int]) -> Reply:
        (writes,) = protocol.fields(protocol.MULTI, payload, "REGION_WRITE_MULTI")
        each = protocol.MULTI_WRITE
        body = payload[protocol.MULTI.size :]
        if len(body) != writes * each.size:
            raise Refused(f"REGION_WRITE_MULTI: {writes} writes in {len(body)} bytes")
        for offset, region, count, data in each.iter_unpack(body):
            if count > len(data):
                raise Refused(f"REGION_WRITE_MULTI: a write of {count} bytes, 8 are the most")
            self._check_access("REGION_WRITE_MULTI", region, offset, count)
            self.device.region_write(region, offset, data[:count])
        return protocol.MULTI.pack(writes), ()

    def _reset(self, payload: bytes, fds: list[int]) -> Reply:
        if not self.device.resettable:
            raise Refused("RESET: the device cannot be reset", errno.ENOTSUP)
        self.device.do_reset("message")
        return b"", ()

    def _no_migration(self, payload: bytes, fds: list[int]) -> Reply:
        raise Refused("migration and dirty pages are not there", errno.ENOTSUP)

    def _check_access(self, name: str, region: int, offset: int, count: int) -> None:
        if count > protocol.MAX_TRANSFER:
            raise Refused(f"{name}: {count} bytes at once, {protocol.MAX_TRANSFER} are the most")
        size = self.device.region_size(region)
        if count == 0 or offset + count > size:
            raise Refused(
                f"{name} of region {region}: {offset:#x}+{count:#x} is outside its {size:#x} bytes"
            )


def _check_argsz(name: str, argsz: int, needed: int) -> None:
    if argsz < needed:
        raise Refused(f"{name}: argsz {argsz}, {needed} are needed")


def _region_flags(index: int, size: int) -> int:
    if not size:
        return 0
    if index == protocol.ROM_REGION:
        return protocol.REGION_READ
    return protocol.REGION_READ | protocol.REGION_WRITE


__all__ = ["CALL_TIMEOUT", "Answer", "Session"]
