"""Messages over a Unix socket, with the descriptors that came along.

The header and the rest are received apart, so that descriptors belong to the message whose
bytes they came with.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.device import protocol
from harness.device.protocol import HEADER, PeerGone, Refused

_KERNEL_MOST: Final = 253
"""SCM_MAX_FD: descriptors that one sendmsg() can carry."""
_ANCILLARY: Final = socket.CMSG_SPACE(_KERNEL_MOST * 4)
_FLAGS: Final = socket.MSG_CMSG_CLOEXEC


@dataclass(slots=True)
class Message:
    """One message as received."""

    id: int
    command: int
    flags: int
    error: int
    payload: bytes
    fds: list[int] = field(default_factory=list)
    """Ours to close; who keeps one takes it out."""

    @property
    def is_reply(self) -> bool:
        """Say whether it answers one of ours."""
        return self.flags & protocol.TYPE_MASK == protocol.TYPE_REPLY

    @property
    def wants_reply(self) -> bool:
        """Say whether the sender waits for an answer."""
        return not self.flags & protocol.FLAG_NO_REPLY

    def close(self) -> None:
        """Close the descriptors that nobody took."""
        while self.fds:
            os.close(self.fds.pop())


class Wire:
    """One connection. One thread receives; any may send."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._sending = threading.Lock()

    def fileno(self) -> int:
        """Return the descriptor of the socket, for polling."""
        return self._socket.fileno()

    def receive(self, deadline: float | None = None) -> Message | None:
        """Return the next message; None if none began before *deadline* (monotonic seconds).

        :raise PeerGone: the other side closed, between messages or in one.
        :raise Refused: what came cannot be a message (fatal).
        """
        if deadline is not None and not self._readable(deadline):
            return None
        fds: list[int] = []
        try:
            header = self._exactly(HEADER.size, fds)
            number, command, size, flags, error = HEADER.unpack(header)
            if not HEADER.size <= size <= protocol.MAX_MESSAGE:
                raise Refused(f"header: a message of {size} bytes", fatal=True)
            if flags & protocol.TYPE_MASK > protocol.TYPE_REPLY:
                raise Refused(f"header: flags {flags:#x} are of no type", fatal=True)
            payload = self._exactly(size - HEADER.size, fds) if size > HEADER.size else b""
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return Message(number, command, flags, error, payload, fds)

    def send(
        self,
        number: int,
        command: int,
        payload: bytes = b"",
        *,
        flags: int = protocol.TYPE_COMMAND,
        error: int = 0,
        fds: Sequence[int] = (),
    ) -> None:
        """Send one message; the descriptors stay ours.

        :raise PeerGone: the other side has closed.
        """
        size = HEADER.size + len(payload)
        self.send_bytes(HEADER.pack(number, command, size, flags, error) + payload, fds)

    def send_bytes(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send bytes that need not be a message.

        :raise PeerGone: the other side has closed.
        """
        try:
            with self._sending:
                if fds:
                    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
                    data = data[self._socket.sendmsg([data], [rights]) :]
                if data:  # a send of nothing to who has gone is an error, too
                    self._socket.sendall(data)
        except OSError as error:
            raise PeerGone(f"the connection is closed: {error}") from error

    def shut(self) -> None:
        """End the connection; a thread that receives from it hears that."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _readable(self, deadline: float) -> bool:
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))

    def _exactly(self, count: int, fds: list[int]) -> bytes:
        data = self._some(count, fds)
        if len(data) == count:
            return data
        parts = [data]
        have = len(data)
        while have < count:
            more = self._some(count - have, fds)
            parts.append(more)
            have += len(more)
        return b"".join(parts)

    def _some(self, count: int, fds: list[int]) -> bytes:
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(count, _ANCILLARY, _FLAGS)
        except OSError as error:
            raise PeerGone(f"the connection is closed: {error}") from error
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                got = array.array("i")
                got.frombytes(content[: len(content) // got.itemsize * got.itemsize])
                fds.extend(got)
        if flags & socket.MSG_CTRUNC or len(fds) > protocol.MAX_FDS:
            raise Refused(f"more than {protocol.MAX_FDS} descriptors in one message", fatal=True)
        if not data:
            raise PeerGone("the other side closed the connection")
        return data
