"""An SSH server in this process: it runs commands with /bin/sh and can be cut off."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
import pytest
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_SUCCEEDED

from harness.guest.keys import RunKey, make_key
from harness.guest.ssh import KnownHost, SshTransport
from harness.wait import Guard

SOURCE = Path(__file__).parents[2] / "images" / "probe"


@dataclass
class Server(paramiko.ServerInterface):
    """A server; one connection at a time is enough, more work too.

    :param mute: accept commands, answer nothing.
    """

    key: RunKey
    host_key: paramiko.PKey
    mute: bool = False
    commands: list[str] = field(default_factory=list)
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    transports: list[paramiko.Transport] = field(default_factory=list)

    def dial(self) -> socket.socket:
        """Return the client's end of a new connection."""
        ours, theirs = socket.socketpair()
        self.serve(theirs)
        return ours

    def serve(self, stream: socket.socket) -> None:
        """Serve a connection."""
        transport = paramiko.Transport(stream)
        transport.add_server_key(self.host_key)
        transport.start_server(event=threading.Event(), server=self)
        self.transports.append(transport)

    def cut(self) -> None:
        """Let every connection break, as when the system dies."""
        for transport in self.transports:
            transport.close()

    def end(self) -> None:
        """End everything."""
        self.cut()
        for child in self.children:
            if child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    @property
    def known_hosts_line(self) -> str:
        """What OpenSSH would write about it, without the name."""
        return f"{self.host_key.get_name()} {self.host_key.get_base64()}"

    # what paramiko asks

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        good = username == "root" and key.get_base64() == self.key.public
        return AUTH_SUCCESSFUL if good else AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.commands.append(command.decode())
        if not self.mute:
            threading.Thread(target=self._serve, args=(channel, command), daemon=True).start()
        return True

    def _serve(self, channel: paramiko.Channel, command: bytes) -> None:
        child = subprocess.Popen(
            ["sh", "-c", command.decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.children.append(child)
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        outputs = [
            threading.Thread(target=_move, args=(child.stdout, channel.sendall), daemon=True),
            threading.Thread(
                target=_move, args=(child.stderr, channel.sendall_stderr), daemon=True
            ),
        ]
        for thread in outputs:
            thread.start()
        threading.Thread(target=_feed, args=(channel, child.stdin), daemon=True).start()
        for thread in outputs:
            thread.join()
        status = child.wait()
        child.stdout.close()
        child.stderr.close()
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            if status >= 0:
                channel.send_exit_status(status)
            channel.shutdown_write()
            channel.close()


def _move(source: object, send: Callable[[bytes], object]) -> None:
    with contextlib.suppress(OSError, EOFError, ValueError):
        while data := source.read1(65536):  # type: ignore[attr-defined]
            send(data)


def _feed(channel: paramiko.Channel, stdin: object) -> None:
    with contextlib.suppress(OSError, EOFError, ValueError):
        while data := channel.recv(65536):
            stdin.write(data)  # type: ignore[attr-defined]
            stdin.flush()  # type: ignore[attr-defined]
    with contextlib.suppress(OSError, ValueError):
        stdin.close()  # type: ignore[attr-defined]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server on this computer."""
    made = Server(make_key(tmp_path), paramiko.ECDSAKey.generate())
    yield made
    made.end()


@pytest.fixture
def log_in(server: Server) -> Iterator[Callable[..., SshTransport]]:
    """Log in to it."""
    with contextlib.ExitStack() as stack:

        def connect(
            *,
            guards: tuple[Guard, ...] = (),
            host_key: str = "",
            known: KnownHost | None = None,
            key: Path | None = None,
            probe: str = "/usr/bin/probe",
            timeout: float = 30,
        ) -> SshTransport:
            transport = SshTransport(
                "fake", server.dial, key=key or server.key.private, guards=guards,
                host_key=host_key, known=known, probe=probe,
            )  # fmt: skip
            stack.callback(transport.close)
            transport.log_in(timeout=timeout)
            return transport

        yield connect


@pytest.fixture
def ssh(log_in: Callable[..., SshTransport]) -> SshTransport:
    """A connection to it."""
    return log_in()


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The static helper, compiled."""
    program = tmp_path_factory.mktemp("probe") / "probe"
    sources = sorted(SOURCE.glob("*.c"))
    subprocess.run(["gcc", "-O1", "-static", "-o", program, *sources], check=True)
    return str(program)
