"""Where a QEMU process can be started, as the machine layer needs it.

`LocalPlace` is this computer. Places behind SSH have the same face and live in
`harness.guest.transport`; a machine does not know the difference.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from harness import paths, process


class Process(Protocol):
    """A running program somewhere."""

    @property
    def pid(self) -> int:
        """Process id, there."""

    def poll(self) -> int | None:
        """Return the exit status (negative: signal number), None while it runs."""

    def wait(self, seconds: float) -> int | None:
        """Return the exit status as soon as it ends, None if it still runs after *seconds*."""

    def kill(self) -> int:
        """End it and all its children now; return the exit status."""

    def left(self) -> Mapping[str, bytes]:
        """Return the files it left in its directory, by name. It has ended; callable twice.

        :raise HarnessError: they cannot be read.
        """

    def leave(self) -> None:
        """Let go of it; only for one that was started to stay."""


class Place(Protocol):
    """A system on which processes run and files lie."""

    @property
    def name(self) -> str:
        """For messages: ``this computer``, ``host``…"""

    def check(self) -> None:
        """Raise if the system itself is known to be dead, and why. A guard for waits."""

    def new_directory(self) -> str:
        """Return a private directory for one process, with a short path.

        Unix sockets end at 107 bytes. It may be that only `start` makes it.
        """

    def remove_directory(self, path: str) -> None:
        """Remove it and what is in it, if it did not go with its process."""

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log: str,
        directory: str = "",
        stays: bool = False,
    ) -> Process:
        """Start *argv*; stdout and stderr go to the file *log*, there.

        :param directory: its own, from `new_directory`.
        :param stays: may be left, and taken over by who comes next.
        """

    def take_over(self, directory: str) -> Process:
        """Return the process that somebody left in *directory*.

        :raise OSError: there is none.
        """

    def connect(self, path: str, *, timeout: float) -> socket.socket:
        """Return a stream connected to the Unix socket *path*, waiting until it exists.

        :raise OSError: it cannot be reached now; the caller decides whether to try again.
        """

    def read(self, path: str, *, offset: int = 0) -> bytes:
        """Return the content of a file from *offset* on, empty if there is none."""

    def size(self, path: str) -> int:
        """Return the size of a file in bytes, 0 if there is none."""


class LocalProcess:
    """A child of ours."""

    def __init__(self, child: subprocess.Popen[bytes], directory: str = "") -> None:
        self._child = child
        self._directory = directory

    @property
    def pid(self) -> int:
        """Process id."""
        return self._child.pid

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        return self._child.poll()

    def wait(self, seconds: float) -> int | None:
        """Return the exit status as soon as it ends, None if it still runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._child.wait(seconds)
        return None

    def kill(self) -> int:
        """End it and its group now."""
        return process.kill(self._child)

    def left(self) -> Mapping[str, bytes]:
        """Return the files it left in its directory, by name."""
        if not self._directory:
            return {}
        return {
            path.name: path.read_bytes()
            for path in Path(self._directory).iterdir()
            if path.is_file() and not path.name.startswith(".")
        }

    def leave(self) -> None:
        """Raise: it ends with us."""
        raise OSError("what runs on this computer cannot be left")


class LocalPlace:
    """This computer."""

    name = "this computer"

    def check(self) -> None:
        """Nothing to say: if this computer is dead, so are we."""

    def new_directory(self) -> str:
        """Make a private directory under the run-time directory."""
        return os.fspath(paths.runtime_dir())

    def remove_directory(self, path: str) -> None:
        """Remove it and what is in it."""
        paths.remove_runtime_dir(Path(path))

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log: str,
        directory: str = "",
        stays: bool = False,
    ) -> Process:
        """Start *argv*, bound to our life: nothing stays on this computer.

        :raise OSError: the program could not be started.
        """
        if stays:
            raise OSError("what runs on this computer ends with us and cannot be left")
        with open(log, "ab") as stream:
            child = process.start(
                argv, stdout=stream, stderr=subprocess.STDOUT, env={**os.environ, **env}
            )
        return LocalProcess(child, directory)

    def take_over(self, directory: str) -> Process:
        """Raise: nothing is ever left here."""
        raise OSError(f"nothing is left in {directory}")

    def connect(self, path: str, *, timeout: float) -> socket.socket:
        """Connect to the Unix socket *path*; it is tried once."""
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.settimeout(timeout)
        try:
            stream.connect(path)
        except OSError:
            stream.close()
            raise
        stream.settimeout(None)
        return stream

    def read(self, path: str, *, offset: int = 0) -> bytes:
        """Return the content of a file from *offset* on, empty if there is none."""
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as stream:
            stream.seek(offset)
            return stream.read()
        return b""

    def size(self, path: str) -> int:
        """Return the size of a file in bytes, 0 if there is none."""
        with contextlib.suppress(FileNotFoundError):
            return Path(path).stat().st_size
        return 0
