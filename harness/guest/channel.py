"""A program at the far end of a connection: what SSH and the agent of an AP host both give."""

from __future__ import annotations

import threading
from typing import Protocol


class Buffer(Protocol):
    """Bytes that came and were not taken yet."""

    def set_event(self, event: threading.Event) -> None:
        """Set *event* whenever something comes."""


class Channel(Protocol):
    """Input, output and end of one program; `paramiko.Channel` is one."""

    @property
    def in_buffer(self) -> Buffer:
        """Its output."""

    @property
    def closed(self) -> bool:
        """Somebody hung up."""

    @property
    def eof_received(self) -> int:
        """Nothing more will come."""

    def settimeout(self, timeout: float) -> None:
        """Let `recv` wait this long, seconds."""

    def recv_ready(self) -> bool:
        """Say whether there is output."""

    def recv(self, nbytes: int) -> bytes:
        """Return output, empty at its end."""

    def recv_stderr_ready(self) -> bool:
        """Say whether there is error output."""

    def recv_stderr(self, nbytes: int) -> bytes:
        """Return error output, empty at its end."""

    def sendall(self, s: bytes) -> None:
        """Give bytes to its input."""

    def shutdown_write(self) -> None:
        """End its input."""

    def close(self) -> None:
        """Hang up."""
