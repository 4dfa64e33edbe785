"""Waking a system of ours: telling it who may log in, and what makes it different from others.

A system may have been saved and be running for the second time, beside others that were saved
as one. So time, entropy, identity and keys come from outside, over its second serial port,
and it opens its SSH port when it has them. ``probe wake`` (images/probe/wake.c) is at the
other end.
"""

from __future__ import annotations

import base64
import secrets
import time
from pathlib import Path

from harness.errors import Unreachable, WaitTimeout
from harness.guest.keys import HostKey, make_host_key
from harness.machine.machine import Machine
from harness.step import step
from harness.wait import wait_until

ENTROPY_BYTES = 32
"""As much as the generator's key has. A nested guest pays 0.7 ms for each byte of the line."""
_LONGEST_ANSWER = 4096


def wake_line(authorized: str, host: HostKey, *, now: float, entropy: bytes, machine: str) -> str:
    """Return what is said to a system that shall wake (pure).

    :param authorized: base64 of the ed25519 key that may log in.
    :param now: wall clock, seconds since 1970.
    :param entropy: at least 32 bytes for its random generator.
    :param machine: its machine id and boot id: 32 hex digits.
    """
    seconds = int(now)
    nanoseconds = int((now - seconds) * 1e9)
    return (
        f"clock={seconds}.{nanoseconds:09d} entropy={_base64(entropy)} machine={machine}"
        f" authorized={authorized} hostkey={_base64(host.pair)}\n"
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def wake(machine: Machine, authorized: str, *, timeout: float = 120) -> str:
    """Wake the system in *machine*; return the host key it has from now on.

    :param authorized: base64 of the ed25519 key that may log in.
    :raise Unreachable: no answer, or a refusal.
    """
    host = make_host_key()
    with step("wake %s", machine.spec.name):
        line = wake_line(
            authorized,
            host,
            now=time.time(),
            entropy=secrets.token_bytes(ENTROPY_BYTES),
            machine=secrets.token_hex(16),
        )
        _say(machine, line, timeout)
    return host.public


def _say(machine: Machine, line: str, timeout: float) -> None:
    name, console = machine.spec.name, Path(machine.evidence) / "console.log"
    stream = wait_until(
        f"{name}: its second serial port",
        lambda: machine.try_connect(machine.sockets.wake),
        timeout=timeout,
        guards=(machine.check,),
    )
    said = bytearray()

    def answered() -> bool:
        try:
            news = stream.recv(_LONGEST_ANSWER)
        except TimeoutError:
            return False
        if not news:
            machine.check()
            raise Unreachable(f"{name}: its second serial port was closed")
        said.extend(news)
        return b"\n" in said

    with stream:
        try:
            stream.settimeout(0.25)
            stream.sendall(line.encode())
            wait_until(
                f"{name} wakes", answered, timeout=timeout,
                guards=(machine.check,), interval=0,
            )  # fmt: skip
        except WaitTimeout as error:
            raise Unreachable(
                f"{name}: it does not wake", seen=said.decode(errors="replace"),
                evidence=console, hint="the console says whether it still runs",
            ) from error  # fmt: skip
        except OSError as error:
            machine.check()
            raise Unreachable(
                f"{name}: its second serial port broke off", seen=str(error), evidence=console
            ) from error
    answer = said.decode(errors="replace").strip()
    if answer != "awake":
        raise Unreachable(
            f"{name}: it refuses to wake",
            seen=answer,
            evidence=console,
            hint="is its image older than this trapline? `trapline images build` makes it again",
        )
