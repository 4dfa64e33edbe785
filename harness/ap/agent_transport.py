"""Commands and files of a system behind the agent of an AP host: a `Transport`."""

from __future__ import annotations

import os
from collections.abc import Sequence

from harness.ap.agent import Agent
from harness.ap.agent_channel import AgentChannel
from harness.ap.agent_wire import FileAnswer, FileRequest
from harness.errors import CommandFailed, Unreachable
from harness.guest.probe_place import ProbePlace
from harness.guest.transport import Command, Completed, command_text, completed

START = 30.0
"""Seconds for a program to be started."""


class AgentTransport(ProbePlace):
    """Commands over one `Agent`.

    :param probe: path of the static helper there.
    """

    def __init__(self, agent: Agent, *, probe: str = "/usr/bin/probe") -> None:
        self.agent = agent
        self.probe = probe

    @property
    def name(self) -> str:
        """Of the system, for messages."""
        return self.agent.name

    def check(self) -> None:
        """Raise if the system is known to be dead or out of reach, and why."""
        self.agent.check()

    def channel(self, command: Command) -> AgentChannel:
        """Start *command*: shell text by a shell, words without one."""
        words = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        return self.agent.start(words)

    def run(
        self, command: Command, *, timeout: float = 60, stdin: bytes = b"", check: bool = True
    ) -> Completed:
        """Run *command* to its end; one that does not end in time is killed.

        :raise CommandFailed: *check* and the exit status is not 0.
        :raise Unreachable: the system went away, or *timeout* passed.
        """
        text = command_text(command)
        channel = self.channel(command)
        if stdin:
            channel.sendall(stdin)
        channel.shutdown_write()
        ended = channel.wait_end(timeout=timeout)
        out, err = bytes(channel.in_buffer.data), bytes(channel.in_stderr_buffer.data)
        if not ended or (channel.status is None and not channel.failed):
            said = (out + err).decode(errors="replace")[-1000:]
            if not ended:
                channel.kill()
                raise Unreachable(
                    f"{self.name}: {text!r} did not end within {timeout:g} s", seen=said
                )
            self.check()
            raise Unreachable(f"{self.name}: the connection ended during {text!r}", seen=said)
        if channel.failed:
            status, err = 127, os.strerror(channel.failed).encode()
        else:
            status = channel.status or 0
        return completed(self.name, text, status, out, err, check=check)

    # -- files ----------------------------------------------------------------------------------

    def batch(self, requests: Sequence[FileRequest], *, timeout: float = 60) -> list[FileAnswer]:
        """Have *requests* done in order, in one trip."""
        return self.agent.batch(requests, timeout=timeout)

    def read(self, path: str, *, offset: int = 0) -> bytes:
        """Return a file's bytes from *offset* on, empty if there is none.

        :raise CommandFailed: it is there and cannot be read.
        """
        (answer,) = self.batch([FileRequest("r", path)], timeout=120)
        if answer.error != "ENOENT":
            self.must(f"read {path}", answer)
        return answer.data[offset:]

    def size(self, path: str) -> int:
        """Return a file's size in bytes, 0 if there is none."""
        (answer,) = self.batch([FileRequest("s", path)])
        return int(answer.text) if not answer.errno else 0

    def write(self, path: str, content: bytes) -> None:
        """Write a file there, whole, in one write().

        :raise CommandFailed: it was refused; the exit status is the errno.
        """
        (answer,) = self.batch([FileRequest("w", path, content)], timeout=300)
        self.must(f"write {path}", answer)

    def must(self, what: str, answer: FileAnswer) -> None:
        """Raise unless *answer* says that it was done.

        :raise CommandFailed: the exit status is the errno.
        """
        if answer.errno:
            raise CommandFailed(
                what, exit_status=answer.errno, stdout="", stderr=answer.reason, where=self.name
            )

    def close(self) -> None:
        """Let go of the connection."""
        self.agent.close()
