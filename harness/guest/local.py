"""Commands and files of this computer."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile

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
        with child:
            try:
                out, err = child.communicate(stdin, timeout=timeout)
            except subprocess.TimeoutExpired as error:
                process.kill(child)
                seen = (error.output or b"") + (error.stderr or b"")
                raise Unreachable(
                    f"{self.name}: {text!r} did not end within {timeout:g} s",
                    seen=seen.decode(errors="replace")[-1000:],
                ) from error
            except BaseException:
                process.kill(child)
                raise
        return completed(self.name, text, child.returncode, out, err, check=check)

    def open(self, command: Command) -> Conversation:
        """Start *command* and talk to it line by line."""
        text = command_text(command)
        if not isinstance(command, str):  # text may be more than one command
            text = f"exec {text}"
        complaints = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the conversation)
        child = process.start(
            ["sh", "-c", text],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
        )
        assert child.stdin is not None and child.stdout is not None
        stdin, stdout = child.stdin, child.stdout
        ours, theirs = socket.socketpair()

        def write(data: bytes) -> None:
            stdin.write(data)
            stdin.flush()

        def last_words() -> str:
            return os.pread(complaints.fileno(), 65536, 0).decode(errors="replace")

        def end() -> None:
            _end_child(child)
            complaints.close()

        def finish() -> None:
            theirs.close()
            stdout.close()

        pump(lambda size: os.read(stdout.fileno(), size), theirs.sendall, finish)
        return LineConversation(self.name, ours, write, end, last_words=last_words)

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
