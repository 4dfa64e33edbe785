"""Commands and files of a system behind SSH (paramiko over any stream)."""

from __future__ import annotations

import io
import os
import shlex
import socket
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import paramiko

from harness.errors import Unreachable, WaitTimeout
from harness.guest.probe_place import ProbePlace
from harness.guest.transport import Command, Completed, command_text, completed, pump
from harness.step import step
from harness.wait import Guard, wait_until

ANSWER = 30.0
"""Seconds for the far end to accept a channel and a command."""
NO_STATUS = -1
"""What paramiko says when a channel closed without exit status: a signal, or the end of all."""


@dataclass(frozen=True, slots=True)
class KnownHost:
    """How a host that is not ours proves who it is.

    :param known_hosts: OpenSSH file with its key; None: ``~/.ssh/known_hosts``.
    :param trust_new: without a file, take any key (for loopback addresses).
    """

    name: str
    port: int
    known_hosts: Path | None = None
    trust_new: bool = False

    def prepare(self, client: paramiko.SSHClient) -> None:
        """Let *client* accept what this says and nothing else."""
        if self.known_hosts is not None:
            client.load_system_host_keys(os.fspath(self.known_hosts))
        elif self.trust_new:
            client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        else:
            client.load_system_host_keys()


_A_MOMENT = 2.0
"""Seconds in which a system that is well answers what costs it nothing."""


class SshTransport(ProbePlace):
    """Commands over one SSH connection.

    :param dial: returns a new connected stream to the SSH server; may raise OSError.
    :param key: private key file; None tries the agent and the keys of the user.
    :param host_key: the key it must show: kind and base64.
    :param known: where its key is looked up, if *host_key* is not given.
    :param probe: path of the static helper there.
    :param guards: called while waiting; they raise when the system is known to be dead.
    :param keepalive: seconds between two packets while nothing else is said.
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
        known: KnownHost | None = None,
        guards: Sequence[Guard] = (),
        keepalive: int = 15,
    ) -> None:
        self._name = name
        self._keepalive = keepalive
        self._dial = dial
        self._key = key
        self._user = user
        self._host_key = host_key
        self._known = known
        self._guards = tuple(guards)
        self.probe = probe
        self._ssh: paramiko.SSHClient | None = None
        self._carried: weakref.WeakSet[SshTransport] = weakref.WeakSet()

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
        """Raise if the system is known to be dead or out of reach, and why. A guard for waits."""
        self._ask_guards()
        if self._ssh is not None:
            transport = self._ssh.get_transport()
            if transport is None or not transport.is_active():
                raise Unreachable(
                    f"{self._name}: the SSH connection is gone",
                    hint="did the system crash, or the network go?",
                )

    def _ask_guards(self) -> None:
        for guard in self._guards:
            guard()

    def log_in(self, *, timeout: float) -> None:
        """Connect, trying again until *timeout* seconds have passed.

        :raise Unreachable: no SSH in time; the last cause is in the message.
        """
        last = ["nothing tried"]
        old, self._ssh = self._ssh, None
        if old is not None:
            old.close()

        def attempt() -> bool:
            try:
                self._ssh = self._connect()
            except (OSError, EOFError, paramiko.SSHException) as error:
                last[0] = f"{type(error).__name__}: {error}"
                if hint := _why_never(error):
                    raise Unreachable(
                        f"{self._name} refuses us, or is not who it should be",
                        seen=last[0],
                        hint=hint,
                    ) from error
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
        name, port = self._name, 22
        if self._host_key:
            kind, blob = self._host_key.split()[:2]
            entry = paramiko.hostkeys.HostKeyEntry.from_line(f"{name} {kind} {blob}")
            if entry is not None and entry.key is not None:
                client.get_host_keys().add(name, kind, entry.key)
        elif self._known is not None:
            name, port = self._known.name, self._known.port
            self._known.prepare(client)
        else:
            # A guest of ours whose key is not known yet is behind a socket that only this
            # process holds.
            client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        stream = self._dial()
        try:
            _send_at_once(stream)
            client.connect(
                name,
                port=port,
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
        if (transport := client.get_transport()) is not None:
            transport.set_keepalive(self._keepalive)
        return client

    @property
    def _transport(self) -> paramiko.Transport:
        self.check()
        transport = self._open_transport
        if transport is None:
            raise Unreachable(f"{self._name}: not logged in")
        return transport

    def channel(self, command: Command) -> paramiko.Channel:
        """Start *command* on a channel of its own.

        :raise Unreachable: the system does not answer.
        """
        text = command_text(command)
        channel: paramiko.Channel | None = None
        try:
            channel = self._transport.open_session(timeout=ANSWER)
            # exec_command() waits for an answer without end; closing the channel ends that.
            watch = threading.Timer(ANSWER, channel.close)
            watch.daemon = True
            watch.start()
            try:
                channel.exec_command(text)
            finally:
                watch.cancel()
        except (paramiko.SSHException, EOFError, OSError) as error:
            if channel is not None:
                channel.close()
            self._ask_guards()
            raise Unreachable(
                f"{self._name}: could not start {text!r}", seen=str(error)
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
        """Run *command* to its end; see `Transport.run`.

        What does not end in time is left to itself: SSH has no way to end it for sure.
        """
        text = command_text(command)
        status, out, err = self._run(text, timeout=timeout, stdin=stdin)
        return completed(self._name, text, status, out, err, check=check)

    def _run(self, text: str, *, timeout: float, stdin: bytes = b"") -> tuple[int, bytes, bytes]:
        channel = self.channel(text)
        out, err = io.BytesIO(), io.BytesIO()
        try:
            _feed(channel, stdin)
            self._gather(channel, out, err, timeout, text)
            status = channel.recv_exit_status()
            if status != NO_STATUS or channel.eof_received:
                return status, out.getvalue(), err.getvalue()
            self._ask_guards()
            raise self._cut_off(text, out, err)
        except (paramiko.SSHException, EOFError, OSError) as error:
            self._ask_guards()
            raise self._cut_off(text, out, err) from error
        finally:
            channel.close()

    def _cut_off(self, text: str, out: io.BytesIO, err: io.BytesIO) -> Unreachable:
        return Unreachable(
            f"{self._name}: the connection ended during {text!r}",
            seen=(out.getvalue() + err.getvalue()).decode(errors="replace")[-1000:],
        )

    def _gather(
        self, channel: paramiko.Channel, out: io.BytesIO, err: io.BytesIO, limit: float, text: str
    ) -> None:
        """Gather both streams until the far end closes them and says the exit status."""
        deadline = time.monotonic() + limit
        news = threading.Event()
        channel.in_buffer.set_event(news)
        channel.in_stderr_buffer.set_event(news)
        while True:
            # In this order: what arrives after the look at the end is not lost to it.
            ended = channel.closed or (channel.eof_received and channel.exit_status_ready())
            news.clear()
            idle = True
            while channel.recv_ready():
                out.write(channel.recv(65536))
                idle = False
            while channel.recv_stderr_ready():
                err.write(channel.recv_stderr(65536))
                idle = False
            if ended:
                return
            self._ask_guards()
            if time.monotonic() > deadline:
                raise Unreachable(
                    f"{self._name}: {text!r} did not end within {limit:g} s",
                    seen=(out.getvalue() + err.getvalue()).decode(errors="replace")[-1000:],
                )
            if idle and channel.eof_received:
                channel.status_event.wait(0.2)
            elif idle:
                news.wait(0.2)

    def read(self, path: str, *, offset: int = 0) -> bytes:
        """Return a file's bytes from *offset* on, empty if there is none.

        :raise CommandFailed: it is there and cannot be read.
        """
        quoted = shlex.quote(path)
        command = f"cat {quoted}" if offset == 0 else f"tail -c +{offset + 1} {quoted}"
        command = f"if [ -e {quoted} ]; then {command}; fi"
        status, out, err = self._run(command, timeout=120)
        completed(self._name, command, status, b"", err, check=True)
        return out

    def size(self, path: str) -> int:
        """Return a file's size in bytes, 0 if there is none."""
        quoted = shlex.quote(path)
        said = self.run(f"[ -e {quoted} ] && stat -c %s {quoted} || echo 0").stdout
        return int(said.strip() or 0)

    def write(self, path: str, content: bytes) -> None:
        """Write a file there, whole."""
        self.run(f"cat > {shlex.quote(path)}", stdin=content, timeout=300)

    def carries(self, inner: SshTransport) -> None:
        """Note that the connection of *inner* goes through this one."""
        self._carried.add(inner)

    def fall_silent(self) -> bool:
        """Send nothing unasked from now on; say whether what was sent has arrived.

        For a system that is about to be stopped: what does not arrive is sent again later and
        later, and after minutes the connection is given up.
        """
        self._keep_alive(0)
        transport = self._open_transport
        if transport is None:
            return True
        # It waits for the answer without end, as long as the connection is there.
        asking = threading.Thread(
            target=transport.global_request, args=("trapline@silence", None, True), daemon=True
        )
        asking.start()
        asking.join(_A_MOMENT)
        return not asking.is_alive()

    def speak_up(self) -> None:
        """Say something now and then again."""
        self._keep_alive(self._keepalive)

    def _keep_alive(self, seconds: int) -> None:
        for inner in tuple(self._carried):
            inner._keep_alive(seconds and inner._keepalive)
        if (transport := self._open_transport) is not None:
            transport.set_keepalive(seconds)

    @property
    def _open_transport(self) -> paramiko.Transport | None:
        return self._ssh.get_transport() if self._ssh is not None else None

    def close(self) -> None:
        """Close the connection."""
        if self._ssh is not None:
            self._ssh.close()
            self._ssh = None


def _send_at_once(stream: socket.socket | paramiko.Channel) -> None:
    """Let no small packet wait for the answer to the one before: each would, for 40 ms."""
    if isinstance(stream, socket.socket) and stream.family in (socket.AF_INET, socket.AF_INET6):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _feed(channel: paramiko.Channel, stdin: bytes) -> None:
    """Give *stdin* to a command, in a thread: it may want to be read before it reads."""
    if not stdin:
        channel.shutdown_write()
        return
    rest = io.BytesIO(stdin)
    pump(rest.read, channel.sendall, channel.shutdown_write)


def _why_never(error: Exception) -> str:
    """Return what to do about an error that trying again does not cure, or nothing."""
    if isinstance(error, paramiko.BadHostKeyException):
        return "its host key has changed: is it the right host? then correct known_hosts"
    if "not found in known_hosts" in str(error):
        return "log in with ssh once, or give its key: ssh://…?known_hosts=FILE"
    if isinstance(error, paramiko.AuthenticationException) and "timeout" not in str(error).lower():
        return "is the key right (ssh://…?key=FILE), and may this user log in?"
    return ""
