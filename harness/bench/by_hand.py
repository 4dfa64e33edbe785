"""The floor: the same QEMU command line, started as by hand, to the same point.

No `Machine` and no `SshTransport`: a process, sockets that are read until the guest is ready and
awake, and paramiko as its documentation shows it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import paramiko

from harness import paths, process
from harness.errors import LaunchFailed, Unreachable
from harness.guest.keys import RunKey, make_host_key
from harness.guest.wake import ENTROPY_BYTES, wake_line
from harness.machine.command import MachineSpec, Sockets, command_line
from harness.machine.launch import Runnable
from harness.machine.saved_state import SavedState, to_go_on
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
        except OSError:
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


def wake(run: HandRun, key: RunKey) -> None:
    """Tell the system in *run* who may log in (see `harness.guest.wake`).

    :raise Unreachable: it does not answer, or refuses.
    """
    line = wake_line(
        key.public, make_host_key(), now=time.time(),
        entropy=secrets.token_bytes(ENTROPY_BYTES), machine=secrets.token_hex(16),
    )  # fmt: skip
    with run.connect(run.sockets.wake) as stream:
        stream.sendall(line.encode())
        said = read_until(stream, b"\n", timeout=60).strip()
    if said != b"awake":
        raise Unreachable("it refuses to wake", seen=said.decode(errors="replace"))


def boot_to_first_result(
    spec: MachineSpec, qemu: Runnable, key: RunKey, port: int, evidence: Path
) -> float:
    """Return the seconds from the start of QEMU to the first result over SSH.

    :param port: where *spec* forwards SSH from.
    """
    began = time.monotonic()
    with started(spec, qemu, evidence) as run, run.connect(run.sockets.console) as console:
        read_until(console, READY, timeout=180)
        wake(run, key)
        first_result(port, key)
        return time.monotonic() - began


def orders(state: SavedState) -> bytes:
    """Return the QMP commands that let a QEMU that waits load *state* and say so. Pure."""
    names = (*state.method.capabilities, "events")
    capabilities = [{"capability": name, "state": True} for name in names]
    commands: list[dict[str, object]] = [
        {"execute": "qmp_capabilities"},
        {"execute": "migrate-set-capabilities", "arguments": {"capabilities": capabilities}},
        {"execute": "migrate-incoming", "arguments": {"uri": f"file:{state.devices}"}},
    ]
    return "".join(json.dumps(one) for one in commands).encode()


def restore_to_first_result(
    spec: MachineSpec,
    state: SavedState,
    qemu: Runnable,
    key: RunKey,
    port: int,
    evidence: Path,
) -> tuple[float, float]:
    """Return the seconds from the start of QEMU until it runs, and to the first result.

    :param spec: what *state* was saved of, with SSH forwarded from *port*.
    """
    waiting = to_go_on(spec, state, read_only=not os.access(state.memory, os.W_OK))
    began = time.monotonic()
    with started(waiting, qemu, evidence) as run:
        with run.connect(run.sockets.qmp) as qmp:
            read_until(qmp, b"\r\n", timeout=60)  # its greeting
            qmp.sendall(orders(state))
            read_until(qmp, b'"completed"', timeout=60)  # event MIGRATION
            qmp.sendall(b'{"execute": "cont"}')
            read_until(qmp, b'"RESUME"', timeout=60)
        running = time.monotonic() - began
        wake(run, key)
        first_result(port, key)
        return running, time.monotonic() - began
