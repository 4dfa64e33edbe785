"""A `Place` made of channels: processes, sockets and directories of a system that has ``probe``.

``probe run`` ties what is started to its channel, ``probe relay`` joins one to a Unix socket.
"""

from __future__ import annotations

import secrets
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from harness.guest.channel import Channel
from harness.guest.remote_process import RemoteProcess
from harness.guest.transport import Command, Completed, Conversation, LineConversation, pump
from harness.machine.place import Process

_HOLDER = "run.sock"
"""Socket of the ``probe run`` that holds a process which may be left, in its directory."""


class ProbePlace(ABC):
    """What every connection to a system with ``probe`` can do; it has to give `channel`."""

    probe: str
    """Path of the static helper there."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the system, for messages."""

    @abstractmethod
    def check(self) -> None:
        """Raise if the system is known to be dead or out of reach, and why."""

    @abstractmethod
    def channel(self, command: Command) -> Channel:
        """Start *command* on a channel of its own.

        :raise Unreachable: the system does not answer.
        """

    @abstractmethod
    def run(
        self, command: Command, *, timeout: float = 60, stdin: bytes = b"", check: bool = True
    ) -> Completed:
        """Run *command* to its end."""

    def open(self, command: Command) -> Conversation:
        """Start *command* and talk to it line by line."""
        channel = self.channel(command)
        ours, theirs = socket.socketpair()
        pump(channel.recv, theirs.sendall, theirs.close)
        return LineConversation(
            self.name,
            ours,
            channel.sendall,
            channel.close,
            last_words=lambda: _complaint(channel),
            check=self.check,
        )

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        log: str,
        directory: str = "",
        stays: bool = False,
    ) -> Process:
        """Start *argv* under ``probe run``: it dies when our connection does.

        So does *directory*. What *stays* dies when its system does.
        """
        words = [self.probe, "run", "--log", log]
        if directory:
            words += ["--directory", directory]
        if stays:
            words += ["--socket", f"{directory}/{_HOLDER}"]
        for key, value in env.items():
            words += ["--env", f"{key}={value}"]
        command = [*words, "--", *argv]
        if not stays:
            return RemoteProcess(self.name, self.channel(command))
        done = self.run(command, check=False)
        if done.exit_status != 0:
            raise OSError(2, done.stderr.strip())
        return self.take_over(directory)

    def take_over(self, directory: str) -> Process:
        """Return the process that ``probe run --socket`` holds in *directory*."""
        relay = self.channel([self.probe, "relay", "--wait", "1", f"{directory}/{_HOLDER}"])
        return RemoteProcess(self.name, relay)

    def connect(self, path: str, *, timeout: float) -> socket.socket:
        """Return a stream to the Unix socket *path* of that system."""
        channel = self.channel([self.probe, "relay", "--wait", f"{timeout:g}", path])
        ours, theirs = socket.socketpair()

        def finish() -> None:
            channel.close()
            theirs.close()

        pump(channel.recv, theirs.sendall, lambda: theirs.shutdown(socket.SHUT_WR))
        pump(theirs.recv, channel.sendall, finish)
        return ours

    def new_directory(self) -> str:
        """Return a name that nobody has; ``probe run`` makes the directory, or fails."""
        return f"/tmp/trapline-{secrets.token_hex(6)}"

    def remove_directory(self, path: str) -> None:  # noqa: B027 (there is nothing to remove)
        """Nothing to do: ``probe run`` removes it when its program ends."""


def _complaint(channel: Channel) -> str:
    said = b""
    while channel.recv_stderr_ready():
        said += channel.recv_stderr(65536)
    return said.decode(errors="replace")
