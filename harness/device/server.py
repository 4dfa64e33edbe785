"""Serving a device on a Unix socket: one thread, one client at a time.

::

    with serve(Adder()) as served:
        argv += ["-device", served.qemu_device]
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

from harness import paths
from harness.device.access_log import AccessLog
from harness.device.device import Device
from harness.device.protocol import Refused
from harness.device.session import Session
from harness.device.wire import Wire
from harness.errors import ConfigError

log = logging.getLogger(__name__)

_KEPT: Final = 1000
_PATH_MOST: Final = 107
_GOODBYE: Final = 5.0
"""Seconds a handler has to come back when we close."""


SessionMaker = Callable[[Wire, Device, deque[Refused], deque[Exception]], Session]


class Served:
    """A device that is being served; a context manager. The device outlives its clients."""

    def __init__(
        self, device: Device, path: Path | None = None, session: SessionMaker = Session
    ) -> None:
        self.device = device
        self._private = None if path is not None else paths.runtime_dir()
        self.socket = path if path is not None else Path(self._private or "", "device.sock")
        """Where QEMU connects to."""
        self.peer_errors: deque[Refused] = deque(maxlen=_KEPT)
        """What was wrong with messages of clients."""
        self.failures: deque[Exception] = deque(maxlen=_KEPT)
        """Exceptions of the device's own code."""
        self.clients = 0
        """How many clients have connected."""
        self._make_session = session
        self._session: Session | None = None
        self._lock = threading.Lock()
        self._closing = False
        self._listener = self._listen()
        self._thread = threading.Thread(
            target=self._serve, name=f"device {device.id}", daemon=True
        )
        self._thread.start()

    @property
    def accesses(self) -> AccessLog:
        """Return the log of trapped accesses."""
        return self.device.log

    @property
    def resets(self) -> int:
        """Return how often the device was reset, for whatever cause."""
        return self.device.resets.total()

    @property
    def connected(self) -> bool:
        """Say whether a client is there and agreed on a version."""
        session = self._session
        return session is not None and session.negotiated

    @property
    def serving(self) -> bool:
        """Say whether a client is there."""
        return self._session is not None

    @property
    def qemu_device(self) -> str:
        """Return the value of QEMU's ``-device`` for it, in JSON, without bus and address."""
        return json.dumps(self.qemu_properties)

    @property
    def qemu_properties(self) -> dict[str, object]:
        """Return the properties of QEMU's ``vfio-user-pci`` for it."""
        return {
            "driver": "vfio-user-pci",
            "socket": {"type": "unix", "path": str(self.socket)},
        }

    def disconnect(self) -> None:
        """Drop the client that is there, as a server that died would."""
        session = self._session
        if session is not None:
            session.stop()

    def close(self) -> None:
        """Stop serving; descriptors, memory, socket and thread are gone after it."""
        with self._lock:
            self._closing = True
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self.disconnect()
        self._thread.join(_GOODBYE)
        if self._thread.is_alive():
            log.error("device %s: a handler does not come back; its thread stays", self.device.id)
            return
        self._listener.close()
        self.device.close()
        self.socket.unlink(missing_ok=True)
        if self._private is not None:
            paths.remove_runtime_dir(self._private)

    def __enter__(self) -> Served:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _listen(self) -> socket.socket:
        text = str(self.socket)
        if len(text.encode()) > _PATH_MOST:
            raise ConfigError(f"{text}: a socket's path has at most {_PATH_MOST} bytes")
        if self.socket.is_socket() and not _is_bound(text):
            self.socket.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(text)
        except OSError as error:
            listener.close()
            raise ConfigError(f"{text}: cannot listen there: {error}") from error
        listener.listen(4)
        return listener

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.closing(connection):
                session = self._make_session(
                    Wire(connection), self.device, self.peer_errors, self.failures
                )
                with self._lock:
                    if self._closing:
                        return
                    self._session = session
                    self.clients += 1
                try:
                    session.run()
                except Exception as failure:
                    log.exception("device %s: serving a client failed", self.device.id)
                    self.failures.append(failure)
                finally:
                    self._session = None


def _is_bound(path: str) -> bool:
    """Say whether a process has the socket at *path*, without connecting to it."""
    lines = Path("/proc/net/unix").read_text(errors="replace").splitlines()
    return any(line.endswith(f" {path}") for line in lines)


def serve(device: Device, path: Path | None = None, session: SessionMaker = Session) -> Served:
    """Serve *device* on a Unix socket, in a private directory if no *path* is given.

    :param session: how clients are answered; see `harness.device.faults`.
    :raise ConfigError: the socket cannot be made there.
    """
    return Served(device, path, session)
