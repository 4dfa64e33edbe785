"""The other end of a QEMU network backend: frames in, frames out, counted.

A ``stream`` netdev is a Unix socket that carries each frame behind its length, 32 bits, big
endian (net/stream.c, net_fill_rstate). No network of this computer is touched.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from dataclasses import dataclass, field

from harness.errors import MachineError, WaitTimeout
from harness.wait import Guard

_LENGTH = struct.Struct(">I")
_LONGEST = 65535


def netdev_arguments(name: str, path: str) -> dict[str, object]:
    """Return what ``netdev_add`` needs for one that listens on *path* (since QEMU 7.2)."""
    return {"type": "stream", "id": name, "server": True, "addr": {"type": "unix", "path": path}}


@dataclass(slots=True)
class NetdevPeer:
    """Our end of it; counts what goes each way.

    :param check: a guard: raises when the machine is known to be dead.
    :param address: our MAC address, 6 bytes: what is for others is left out. A machine that was
        moved or restored is announced to all of them by QEMU itself (net/announce.c), for
        seconds. Empty: everything is for us.
    """

    name: str
    stream: socket.socket
    check: Guard = lambda: None
    address: bytes = b""
    sent: int = 0
    received: int = 0
    _buffer: bytearray = field(default_factory=bytearray)

    def send(self, *frames: bytes) -> None:
        """Give the guest Ethernet *frames*.

        :raise MachineError: the backend has gone.
        """
        for frame in frames:
            try:
                self.stream.settimeout(30)
                self.stream.sendall(_LENGTH.pack(len(frame)) + frame)
            except OSError as error:
                self.check()
                raise MachineError(
                    f"{self.name}: the network backend takes no frames", seen=str(error)
                ) from error
            self.sent += 1

    def receive(self, count: int, *, timeout: float) -> list[bytes]:
        """Return the next *count* frames that the guest sends.

        :raise WaitTimeout: not so many came in *timeout* seconds.
        """
        frames: list[bytes] = []
        deadline = time.monotonic() + timeout
        while len(frames) < count:
            frame = self._next(deadline)
            if frame is None:
                raise WaitTimeout(
                    f"{self.name}: {len(frames)} of {count} frames came in {timeout:g} s",
                    seen=f"{self.sent} were sent to the guest",
                )
            frames.append(frame)
        return frames

    def drain(self, *, timeout: float) -> list[bytes]:
        """Return every frame that comes until *timeout* seconds pass."""
        frames: list[bytes] = []
        deadline = time.monotonic() + timeout
        while (frame := self._next(deadline)) is not None:
            frames.append(frame)
        return frames

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self.stream.close()

    def _next(self, deadline: float) -> bytes | None:
        """Return the next frame for us; what has come is looked at after the deadline too."""
        while True:
            while (frame := self._from_buffer()) is not None:
                if frame.startswith(self.address):
                    self.received += 1
                    return frame
            left = deadline - time.monotonic()
            self.stream.settimeout(min(max(left, 0), 0.5))
            try:
                data = self.stream.recv(65536)
            except (TimeoutError, BlockingIOError):
                self.check()
                if left <= 0:
                    return None
                continue
            if not data:
                self.check()
                raise MachineError(f"{self.name}: the network backend has hung up")
            self._buffer += data

    def _from_buffer(self) -> bytes | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > _LONGEST:
            raise MachineError(f"{self.name}: no frame is {length} bytes long")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        frame = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        return frame
