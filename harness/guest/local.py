"""Commands and files of this computer."""

from __future__ import annotations

import contextlib
import socket
import subprocess

from harness import process
from harness.errors import CommandFailed, Unreachable
from harness.guest.transport import (
    Command,
    Completed,
    Conversation,
    LineConversation,
    command_text,
    completed,
    pump,
)
from harness.machine.place import LocalPlace, LocalProcess


class LocalTransport(LocalPlace):
    """Commands on this computer."""

    def run(
        self, command: Command, *, timeout: float = 60, stdin: bytes = b"", check: bool = True
    ) -> Completed:
        """Run *command* to its end; see `Transport.run`."""
        text = command_text(command)
        child = process.start(
            ["sh", "-c", text],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            out, err = child.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            process.kill(child)
            raise Unreachable(f"{self.name}: {text!r} did not end within {timeout:g} s") from error
        return completed(self.name, text, child.returncode, out, err, check=check)

    def open(self, command: Command) -> Conversation:
        """Start *command* and talk to it line by line."""
        child = process.start(
            ["sh", "-c", "exec " + command_text(command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert child.stdin is not None and child.stdout is not None
        ours, theirs = socket.socketpair()
        pump(child.stdout.read1, lambda data: theirs.sendall(data), theirs.close)  # type: ignore[attr-defined]
        return LineConversation(
            self.name, ours, child.stdin.write, child.stdin.flush, lambda: _end_child(child)
        )

    def write(self, path: str, content: bytes) -> None:
        """Write a file, whole."""
        try:
            with open(path, "wb", buffering=0) as stream:
                stream.write(content)
        except OSError as error:
            raise CommandFailed(
                f"write {path}", exit_status=error.errno or 1, stdout="",
                stderr=f"{path}: {error.strerror}", where=self.name,
            ) from error  # fmt: skip

    def close(self) -> None:
        """Nothing to let go of."""


def _end_child(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError, ValueError):
        if child.stdin is not None:
            child.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(2)
    LocalProcess(child).kill()
