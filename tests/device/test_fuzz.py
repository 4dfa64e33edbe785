"""A hostile client: valid messages, bent ones, and noise, with descriptors of every kind.

Runs for two seconds; ``TRAPLINE_FUZZ_SECONDS=600 pytest tests/device -k fuzz -s`` for longer.
A failure names the seed of its connection; ``TRAPLINE_FUZZ_SEED`` begins there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from harness.device import protocol
from harness.device.client import Client
from harness.device.protocol import HEADER, Command, PeerGone
from harness.device.server import Served
from harness.device.wire import Wire
from harness.errors import HarnessError
from harness.wait import wait_until

SECONDS = float(os.environ.get("TRAPLINE_FUZZ_SECONDS", "2"))
FIRST_SEED = int(os.environ.get("TRAPLINE_FUZZ_SEED", "0"))
PATIENCE = 20.0
"""Seconds after which a server that does not end a connection hangs."""
INTERESTING = (
    *(0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 31, 32, 63, 64, 0x7FF, 0x800, 0xFFF, 0x1000, 0x1001),
    *(0x8000, 0xFFFF, 0x10000, 1 << 20, (1 << 20) + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1),
    *(1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 0x1000, (1 << 64) - 1),
)
COMMANDS = tuple(Command)


class Hostile:
    """Makes the messages of one connection from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def number(self, bits: int) -> int:
        chosen = self.random.random()
        if chosen < 0.5:
            return self.random.choice(INTERESTING) & (1 << bits) - 1
        if chosen < 0.9:
            return self.random.randrange(16)
        return self.random.getrandbits(bits)

    def payload(self, command: int) -> bytes:
        """Return a payload of the right form with odd values in it."""
        small, big = self.number(32), self.number(64)
        r = self.random
        argsz = r.choice([0, 16, 20, 24, 32, 64, 4096, self.number(32)])
        match command:
            case Command.VERSION:
                text = r.choice([b"", b"{}\0", b'{"capabilities":{}}\0', b"[[[", r.randbytes(20)])
                return protocol.VERSION.pack(r.choice([0, 0, 0, 1]), r.choice([0, 1, 9])) + text
            case Command.DMA_MAP:
                page = r.randrange(32) << 12
                flags = r.choice([3, 3, 1, 2, 0, small])
                offset = r.choice([0, 0x1000, big])
                return protocol.DMA_MAP.pack(
                    r.choice([32, argsz]), flags, offset, r.choice([page, big]), self.size()
                )
            case Command.DMA_UNMAP:
                page = r.randrange(32) << 12
                flags = r.choice([0, 0, 0, 1, 2, small])
                return protocol.DMA_UNMAP.pack(
                    r.choice([24, argsz]), flags, r.choice([page, 0, big]), self.size()
                )
            case Command.GET_INFO | Command.GET_IRQ_INFO | Command.GET_REGION_IO_FDS:
                return protocol.IRQ_INFO.pack(argsz, r.choice([0, small]), self.number(4), 0)
            case Command.GET_REGION_INFO:
                return protocol.REGION_INFO.pack(argsz, small, self.number(4), small, big, big)
            case Command.SET_IRQS:
                flags = r.choice([1, 2, 4]) | r.choice([8, 16, 32]) | r.choice([0, 0, 0, small])
                count = r.choice([0, 1, 1, 2, 4, 8, small])
                return protocol.IRQ_SET.pack(
                    r.choice([20, argsz]),
                    flags,
                    self.number(3),
                    r.choice([0, 0, 1, small]),
                    count,
                ) + r.randbytes(r.choice([0, count & 15]))
            case Command.REGION_READ:
                return protocol.ACCESS.pack(big & 0x1FFF if r.random() < 0.8 else big, *self.at())
            case Command.REGION_WRITE:
                count = r.choice([1, 2, 4, 8, r.randrange(64)])
                offset = big & 0xFFF if r.random() < 0.8 else big
                region, _ = self.at()
                return protocol.ACCESS.pack(offset, region, count) + r.randbytes(count)
            case Command.REGION_WRITE_MULTI:
                writes = r.randrange(4)
                body = b"".join(
                    protocol.MULTI_WRITE.pack(big & 0xFFF, *self.at(), r.randbytes(8))
                    for _ in range(writes)
                )
                return protocol.MULTI.pack(r.choice([writes, writes, big])) + body
            case Command.DMA_READ | Command.DMA_WRITE:
                return protocol.DMA_ACCESS.pack(big, small)
            case _:
                return r.randbytes(r.randrange(64))

    def size(self) -> int:
        return self.random.choice([0x1000, 0x1000, 0x2000, 0x10000, 0, self.number(64)])

    def at(self) -> tuple[int, int]:
        r = self.random
        return r.choice([0, 0, 1, 2, 4, 6, 7, self.number(32)]), r.choice([1, 2, 4, 8, 8, 64, 9])

    def message(self) -> bytes:
        r = self.random
        if r.random() < 0.02:
            return r.randbytes(r.randrange(200))
        command = r.choice(COMMANDS) if r.random() < 0.95 else self.number(16)
        payload = bytearray(self.payload(command))
        if payload and r.random() < 0.15:
            payload[r.randrange(len(payload))] ^= 1 << r.randrange(8)
        if r.random() < 0.08:
            payload = payload[: r.randrange(len(payload) + 1)]
        if r.random() < 0.04:
            payload += r.randbytes(r.randrange(100))
        flags = r.choice([0, 0, 0, 0, protocol.FLAG_NO_REPLY, 1, 0x21, self.number(8)])
        size = HEADER.size + len(payload)
        if r.random() < 0.01:
            size = self.number(32)
        return HEADER.pack(r.getrandbits(16), command, size, flags, self.number(32)) + payload

    @contextlib.contextmanager
    def descriptors(self) -> Iterator[list[int]]:
        """Give some descriptors, which are closed at the end."""
        fds: list[int] = []
        try:
            if self.random.random() < 0.3:
                for _ in range(self.random.choice([1, 1, 1, 2, 4, 8, 16, 17, 60, 253])):
                    fds += self.descriptor()
            yield fds[:253]
        finally:
            for fd in fds:
                os.close(fd)

    def descriptor(self) -> list[int]:
        kind = self.random.randrange(8)
        if kind < 3:
            full = (1 << 64) - 2
            start = self.random.choice([0, 1])
            fd = os.eventfd(start, self.random.choice([0, os.EFD_NONBLOCK, os.EFD_SEMAPHORE]))
            if self.random.random() < 0.1:
                os.eventfd_write(fd, full - start)
            return [fd]
        if kind < 6:
            fd = os.memfd_create("fuzz", os.MFD_ALLOW_SEALING)
            os.ftruncate(fd, self.random.choice([0, 0x1000, 0x10000, 1 << 20]))
            if kind == 4:
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
            if kind == 5:
                os.ftruncate(fd, self.random.choice([0, 0x1000]))
            return [fd]
        if kind == 6:
            return list(os.pipe())
        return [os.open("/dev/null", os.O_RDONLY)]


def attack(served: Served, seed: int, seen: Counter[str]) -> None:
    """Be a hostile client once.

    :raise AssertionError: the server did not end the connection when we had gone.
    """
    hostile = Hostile(seed)
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(PATIENCE)
    with contextlib.closing(stream):
        stream.connect(str(served.socket))
        wire = Wire(stream)
        drain = threading.Thread(target=_drain, args=(stream, seen), daemon=True)
        drain.start()
        with contextlib.suppress(PeerGone):
            if hostile.random.random() < 0.95:
                wire.send(1, Command.VERSION, protocol.version_payload())
            for _ in range(hostile.random.choice([1, 5, 50, 200])):
                with hostile.descriptors() as fds:
                    data = hostile.message()
                    seen["messages"] += 1
                    seen["descriptors"] += len(fds)
                    if data:
                        wire.send_bytes(data, fds)
        with contextlib.suppress(OSError):
            stream.shutdown(socket.SHUT_WR)
        drain.join(PATIENCE)
        assert not drain.is_alive(), f"seed {seed}: the server does not end the connection"
        seen["connections"] += 1


def _drain(stream: socket.socket, seen: Counter[str]) -> None:
    """Read all that comes, and close descriptors that come with it."""
    while True:
        try:
            data, ancillary, _, _ = stream.recvmsg(65536, 4096)
        except OSError:
            return
        for _, _, content in ancillary:
            for at in range(0, len(content), 4):
                os.close(int.from_bytes(content[at : at + 4], "little"))
        if not data:
            return
        seen["bytes of answers"] += len(data)


@pytest.mark.timeout(SECONDS + 120)
def test_fuzz_a_hostile_client_gets_answers_and_nothing_else(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """No crash, no descriptor and no thread left, whatever a client sends."""
    seen: Counter[str] = Counter()
    with Client(served.socket) as client:
        assert client.info()
    wait_until("the first client is gone", lambda: not served.connected, timeout=PATIENCE)
    attack(served, FIRST_SEED, seen)  # makes the memory of the BARs
    for bar in served.device.bars:
        served.device.memory(bar.index)
    before, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    refused: Counter[str] = Counter()
    end = time.monotonic() + SECONDS
    seed = FIRST_SEED
    while time.monotonic() < end:
        seed += 1
        attack(served, seed, seen)
        refused.update(type(error).__name__ for error in served.peer_errors)
        served.peer_errors.clear()
        assert len(os.listdir("/proc/self/fd")) <= before, f"seed {seed} left descriptors"
        assert threading.active_count() <= threads, f"seed {seed} left threads"
        for failure in served.failures:
            assert isinstance(failure, HarnessError | ValueError), f"seed {seed}: {failure!r}"
            assert "register is broken" in str(failure), f"seed {seed}: {failure!r}"
            seen["failures of the broken register"] += 1
        served.failures.clear()
    with Client(served.socket) as client:
        assert client.info()
    with capsys.disabled():
        figures = ", ".join(f"{count} {name}" for name, count in sorted(seen.items()))
        print(f"\nfuzz: {SECONDS:g} s: {figures}, {refused.total()} errors noted")


def test_fuzz_is_the_same_for_the_same_seed() -> None:
    first, second = Hostile(7), Hostile(7)

    assert [first.message() for _ in range(50)] == [second.message() for _ in range(50)]
