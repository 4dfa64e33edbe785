"""Commands and files of a system behind SSH (paramiko over any stream)."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import paramiko

from harness.errors import CommandFailed, Unreachable, WaitTimeout
from harness.guest.transport import (
    Command,
    Completed,
    Conversation,
    LineConversation,
    command_text,
    completed,
    pump,
)
from harness.machine.place import Process
from harness.step import step
from harness.wait import Guard, wait_until


class SshTransport:
    """Commands over one SSH connection.

    :param dial: returns a new connected stream to the SSH server; may raise OSError.
    :param key: private key file, made for this run.
    :param probe: path of the static helper there.
    :param guards: called while waiting; they raise when the system is known to be dead.
    """

    def __init__(
        self,
        name: str,
        dial: Callable[[], socket.socket | paramiko.Channel],
        *,
        key: Path | None,
        user: str = "root",
        probe: str = "/usr/bin/probe",
        host_key: str = "",
        guards: Sequence[Guard] = (),
    ) -> None:
        self._name = name
        self._dial = dial
        self._key = key
        self._user = user
        self._host_key = host_key
        self._guards = tuple(guards)
        self.probe = probe
        self._ssh: paramiko.SSHClient | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Of the system, for messages."""
        return self._name

    @property
    def host_key(self) -> str:
        """The key it showed: kind and base64, as in ``known_hosts``."""
        key = self._transport.get_remote_server_key()
        return f"{key.get_name()} {key.get_base64()}"

    def check(self) -> None:
        """Raise if the machine behind it is known to be dead, and why."""
        for guard in self._guards:
            guard()

    def log_in(self, *, timeout: float) -> None:
        """Connect, trying again until *timeout* seconds have passed.

        :raise Unreachable: no SSH in time; the last cause is in the message.
        """
        last = ["nothing tried"]

        def attempt() -> bool:
            try:
                self._ssh = self._connect()
            except (OSError, EOFError, paramiko.SSHException) as error:
                last[0] = f"{type(error).__name__}: {error}"
                return False
            return True

        with step("log in to %s", self._name):
            try:
                wait_until(
                    f"SSH to {self._name}", attempt, timeout=timeout,
                    guards=self._guards, last_seen=lambda: last[0],
                )  # fmt: skip
            except WaitTimeout as error:
                raise Unreachable(
                    error.summary, seen=error.seen,
                    hint="look at console.log beside this test's evidence",
                ) from error  # fmt: skip

    def _connect(self) -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        if self._host_key:
            kind, blob = self._host_key.split()[:2]
            entry = paramiko.hostkeys.HostKeyEntry.from_line(f"{self._name} {kind} {blob}")
            if entry is not None and entry.key is not None:
                client.get_host_keys().add(self._name, kind, entry.key)
        else:
            # Physical hosts are checked by their known_hosts in SshHost; a guest of ours whose
            # key is not known yet is behind a socket that only this process holds.
            client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        stream = self._dial()
        try:
            client.connect(
                self._name,
                username=self._user,
                key_filename=os.fspath(self._key) if self._key else None,
                sock=stream,
                allow_agent=self._key is None,
                look_for_keys=self._key is None,
                timeout=20,
                banner_timeout=20,
                auth_timeout=20,
            )
        except BaseException:
            client.close()
            stream.close()
            raise
        return client

    @property
    def _transport(self) -> paramiko.Transport:
        transport = self._ssh.get_transport() if self._ssh is not None else None
        if transport is None or not transport.is_active():
            for guard in self._guards:
                guard()
            raise Unreachable(f"{self._name}: the SSH connection is gone")
        return transport

    def channel(self, command: Command) -> paramiko.Channel:
        """Start *command* on a channel of its own."""
        try:
            channel = self._transport.open_session(timeout=30)
            channel.exec_command(command_text(command))
        except (paramiko.SSHException, EOFError, OSError) as error:
            for guard in self._guards:
                guard()
            raise Unreachable(
                f"{self._name}: could not start {command_text(command)!r}", seen=str(error)
            ) from error
        return channel

    def dial_port(self, port: int) -> paramiko.Channel:
        """Return a stream to a loopback TCP port of that system.

        :raise OSError: refused, so that a log-in loop tries again.
        """
        try:
            return self._transport.open_channel(
                "direct-tcpip", ("127.0.0.1", port), ("127.0.0.1", 0), timeout=20
            )
        except paramiko.SSHException as error:
            raise OSError(str(error)) from error

    def run(
        self, command: Command, *, timeout: float = 60, stdin: bytes = b"", check: bool = True
    ) -> Completed:
        """Run *command* to its end; see `Transport.run`."""
        text = command_text(command)
        channel = self.channel(text)
        try:
            out, err = self._exchange(channel, stdin, time.monotonic() + timeout, text, timeout)
            status = channel.recv_exit_status()
            if status == -1:  # the channel closed without one
                for guard in self._guards:
                    guard()
                raise Unreachable(
                    f"{self._name}: the connection ended during {text!r}",
                    seen=(out + err).decode(errors="replace")[-1000:],
                )
            return completed(self._name, text, status, out, err, check=check)
        except (paramiko.SSHException, EOFError, OSError) as error:
            for guard in self._guards:
                guard()
            raise Unreachable(
                f"{self._name}: the connection ended during {text!r}", seen=str(error)
            ) from error
        finally:
            channel.close()

    def _exchange(
        self, channel: paramiko.Channel, stdin: bytes, deadline: float, text: str, limit: float
    ) -> tuple[bytes, bytes]:
        """Feed *stdin* and gather both streams until the far end closes."""
        out, err = io.BytesIO(), io.BytesIO()
        event = threading.Event()
        channel.in_buffer.set_event(event)
        channel.in_stderr_buffer.set_event(event)
        channel.settimeout(limit)
        channel.sendall(stdin)
        channel.shutdown_write()
        while True:
            event.clear()
            idle = True
            while channel.recv_ready():
                out.write(channel.recv(65536))
                idle = False
            while channel.recv_stderr_ready():
                err.write(channel.recv_stderr(65536))
                idle = False
            if idle and channel.exit_status_ready() and (channel.eof_received or channel.closed):
                return out.getvalue(), err.getvalue()
            if idle and channel.closed:
                return out.getvalue(), err.getvalue()
            for guard in self._guards:
                guard()
            if time.monotonic() > deadline:
                raise Unreachable(
                    f"{self._name}: {text!r} did not end within {limit:g} s",
                    seen=(out.getvalue() + err.getvalue()).decode(errors="replace")[-1000:],
                )
            if idle:
                channel.status_event.wait(0.005) if channel.eof_received else event.wait(0.2)

    def open(self, command: Command) -> Conversation:
        """Start *command* and talk to it line by line."""
        channel = self.channel(command)
        ours, theirs = socket.socketpair()
        pump(channel.recv, theirs.sendall, theirs.close)
        return LineConversation(
            self._name, ours, channel.sendall, lambda: None, lambda: channel.close()
        )

    def start(self, argv: Sequence[str], *, env: Mapping[str, str], log: str) -> Process:
        """Start *argv* under ``probe run``: it dies when our connection does."""
        words = [self.probe, "run", "--log", log]
        for key, value in env.items():
            words += ["--env", f"{key}={value}"]
        channel = self.channel([*words, "--", *argv])
        return _RemoteProcess(self._name, channel)

    def connect(self, path: str, *, timeout: float) -> socket.socket:
        """Return a stream to the Unix socket *path* of that system."""
        channel = self.channel([self.probe, "relay", "--wait", f"{timeout:g}", path])
        ours, theirs = socket.socketpair()
        pump(channel.recv, theirs.sendall, lambda: _shut(theirs))
        pump(theirs.recv, channel.sendall, lambda: channel.close())
        return ours

    def make_directory(self) -> str:
        """Make a private directory there."""
        return self.run("mktemp -d /tmp/trapline-XXXXXX").stdout.strip()

    def remove_directory(self, path: str) -> None:
        """Remove it and what is in it; a system that is gone has nothing left to remove."""
        with contextlib.suppress(Unreachable, CommandFailed):
            self.run(["rm", "-rf", "--", path])

    def read(self, path: str, *, offset: int = 0) -> bytes:
        """Return a file's bytes from *offset* on, empty if there is none."""
        quoted = shlex.quote(path)
        command = f"cat {quoted}" if offset == 0 else f"tail -c +{offset + 1} {quoted}"
        channel = self.channel(f"[ -e {quoted} ] && {command}")
        try:
            out, _ = self._exchange(channel, b"", time.monotonic() + 120, command, 120)
        finally:
            channel.close()
        return out

    def size(self, path: str) -> int:
        """Return a file's size in bytes, 0 if there is none."""
        quoted = shlex.quote(path)
        said = self.run(f"[ -e {quoted} ] && stat -c %s {quoted} || echo 0").stdout
        return int(said.strip() or 0)

    def write(self, path: str, content: bytes) -> None:
        """Write a file there, whole."""
        self.run(f"cat > {shlex.quote(path)}", stdin=content, timeout=300)

    def close(self) -> None:
        """Close the connection."""
        if self._ssh is not None:
            self._ssh.close()
            self._ssh = None


class _RemoteProcess:
    """A process under ``probe run`` at the far end of a channel."""

    def __init__(self, where: str, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._where = where
        self._lock = threading.Lock()
        self._said = b""
        self._status: int | None = None
        self._pid = self._first_line()

    def _first_line(self) -> int:
        self._channel.settimeout(30)
        while b"\n" not in self._said:
            try:
                data = self._channel.recv(4096)
            except TimeoutError as error:
                raise Unreachable(f"{self._where}: no answer from probe run") from error
            if not data:
                break
            self._said += data
        line = self._said.split(b"\n")[0].decode(errors="replace")
        if not line.startswith("pid="):
            stderr = self._channel.recv_stderr(4096).decode(errors="replace")
            raise OSError(2, f"probe run: {stderr.strip() or line}")
        return int(line[4:])

    @property
    def pid(self) -> int:
        """Process id there."""
        return self._pid

    def poll(self) -> int | None:
        """Return the exit status (negative: signal), None while it runs."""
        with self._lock:
            if self._status is None:
                while self._channel.recv_ready():
                    self._said += self._channel.recv(4096)
                self._status = self._parse()
            return self._status

    def _parse(self) -> int | None:
        for line in self._said.decode(errors="replace").splitlines():
            if line.startswith("exit="):
                return int(line[5:])
            if line.startswith("signal="):
                return -int(line[7:])
        if self._channel.closed or self._channel.eof_received:
            return -9  # the far end is gone, and what it ran with it
        return None

    def kill(self) -> int:
        """Close its input: ``probe run`` kills the group, reaps and says so."""
        with contextlib.suppress(OSError, paramiko.SSHException, EOFError):
            self._channel.shutdown_write()
        deadline = time.monotonic() + 15
        self._channel.settimeout(15)
        while self.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError, OSError):
                data = self._channel.recv(4096)
                with self._lock:
                    self._said += data
        self._channel.close()
        return self._status if self._status is not None else -9


def _shut(stream: socket.socket) -> None:
    stream.shutdown(socket.SHUT_WR)
