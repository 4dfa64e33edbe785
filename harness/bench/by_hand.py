"""The floor: the same QEMU command line, started as by hand, to the same point.

Nothing of `harness.machine` or `harness.guest` is used: a process, a socket that is read until
the guest says that it is ready, and paramiko as its documentation shows it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import paramiko

from harness import paths, process
from harness.errors import LaunchFailed, Unreachable
from harness.guest.keys import RunKey
from harness.machine.command import MachineSpec, Sockets, command_line
from harness.machine.launch import Runnable
from harness.wait import wait_until

READY = b"trapline: ready"


def free_port() -> int:
    """Return a loopback port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(slots=True)
class HandRun:
    """A QEMU that was started by hand."""

    child: subprocess.Popen[bytes]
    sockets: Sockets
    evidence: Path

    def connect(self, path: str, *, timeout: float = 20) -> socket.socket:
        """Connect to one of its sockets as soon as there is one."""

        def attempt() -> socket.socket | None:
            stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                stream.connect(path)
            except OSError:
                stream.close()
                return None
            return stream

        return wait_until(
            f"socket {Path(path).name}", attempt, timeout=timeout, interval=0.005,
            guards=(self.check,),
        )  # fmt: skip

    def check(self) -> None:
        """Raise if it ended."""
        status = self.child.poll()
        if status is not None:
            raise LaunchFailed(
                "QEMU, started by hand, ended",
                exit_status=status,
                stderr=(self.evidence / "qemu.log").read_text(errors="replace"),
                evidence=self.evidence,
            )


@contextlib.contextmanager
def started(
    spec: MachineSpec, qemu: Runnable, evidence: Path, *, more: Sequence[str] = ()
) -> Iterator[HandRun]:
    """Have a QEMU of *spec* while inside.

    :param more: further words of its command line.
    """
    directory = paths.runtime_dir()
    sockets = Sockets(os.fspath(directory))
    child: subprocess.Popen[bytes] | None = None
    try:
        with (evidence / "qemu.log").open("wb") as log:
            child = process.start(
                [*qemu.argv_prefix, *command_line(spec, sockets), *more],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(qemu.env),
            )
        yield HandRun(child, sockets, evidence)
    finally:
        if child is not None:
            process.kill(child)
        paths.remove_runtime_dir(directory)


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return our environment with *more* in it."""
    return {**os.environ, **more}


def read_until(stream: socket.socket, mark: bytes, *, timeout: float) -> bytes:
    """Read *stream* until *mark* was in it; return all that came.

    :raise Unreachable: it ended, or the time did.
    """
    said = b""
    deadline = time.monotonic() + timeout
    while mark not in said:
        stream.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            came = stream.recv(65536)
        except TimeoutError:
            came = b""
        if not came:
            raise Unreachable(
                f"{mark.decode()!r} did not come within {timeout:g} s",
                seen=said[-1000:].decode(errors="replace"),
            )
        said += came
    return said


def first_result(port: int, key: RunKey, *, timeout: float = 60) -> None:
    """Log in to *port* of this computer and run ``true`` there.

    :raise Unreachable: that did not work.
    """
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    try:
        client.connect(
            "127.0.0.1", port=port, username="root", key_filename=os.fspath(key.private),
            look_for_keys=False, allow_agent=False, timeout=timeout, banner_timeout=timeout,
            auth_timeout=timeout,
        )  # fmt: skip
        _, out, _ = client.exec_command("true")
        status = out.channel.recv_exit_status()
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise Unreachable("SSH by hand failed", seen=str(error)) from error
    finally:
        client.close()
    if status != 0:
        raise Unreachable(f"'true' by hand ended with {status}")


def boot_to_first_result(
    spec: MachineSpec, qemu: Runnable, key: RunKey, port: int, evidence: Path
) -> float:
    """Return the seconds from the start of QEMU to the first result over SSH.

    :param port: where *spec* forwards SSH from.
    """
    began = time.monotonic()
    with started(spec, qemu, evidence) as run, run.connect(run.sockets.console) as console:
        read_until(console, READY, timeout=180)
        first_result(port, key)
        return time.monotonic() - began
