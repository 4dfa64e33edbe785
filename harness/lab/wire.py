"""The other end of the cable of an emulated network card.

QEMU's ``dgram`` backend over Unix sockets: a datagram is a frame. Nothing leaves this computer.
Whoever is on the wire here answers ARP and pings for one address, and counts what arrives.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections import Counter
from pathlib import Path
from typing import Final

from harness.parse.frame import answer, parse_frame

MAC: Final = "52:54:00:5e:e1:01"
ADDRESS: Final = "198.51.100.1"
"""Of a net that nobody has (RFC 5737)."""
_LONGEST: Final = 65536
_END: Final = b"end"
"""Too short for a frame."""


class Wire:
    """A host on a wire, until it is closed.

    :param directory: for two sockets; its path must be short.
    """

    def __init__(self, directory: Path) -> None:
        self._near, self._far = directory / "wire-near", directory / "wire-far"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(os.fspath(self._near))
        self._echoes: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._live, name="wire", daemon=True)
        self._thread.start()

    def netdev(self, name: str) -> dict[str, object]:
        """Return the arguments of ``netdev_add`` for QEMU's end."""
        return {
            "type": "dgram",
            "id": name,
            "local": {"type": "unix", "path": os.fspath(self._far)},
            "remote": {"type": "unix", "path": os.fspath(self._near)},
        }

    def echoes_asked_by(self, mac: str) -> int:
        """Return how many echo requests came from *mac*."""
        return self._echoes[mac]

    def close(self) -> None:
        """Let go of the wire."""
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last,
        ):
            last.sendto(_END, os.fspath(self._near))
        self._thread.join(timeout=5)
        self._socket.close()

    def _live(self) -> None:
        while True:
            data = self._socket.recv(_LONGEST)
            if data == _END:
                return
            with contextlib.suppress(ValueError):
                frame = parse_frame(data)
                self._echoes[frame.source] += frame.is_echo
            said = answer(data, MAC, ADDRESS)
            if said is not None:
                # QEMU may be gone, or take nothing while its guest stands still.
                with contextlib.suppress(OSError):
                    self._socket.sendto(said, os.fspath(self._far))
