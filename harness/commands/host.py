"""``trapline host``: a virtual host by hand, in the foreground, for people and for ``--host``."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import paths
from harness.commands.places import Places
from harness.guest.keys import make_key
from harness.host.virtual import VirtualHost, ssh_port
from harness.lab.hosts import open_virtual
from harness.lab.parts import Parts
from harness.settings import Settings, find_file, load_settings

_LOOK = 1.0
"""Seconds between two looks at whether QEMU still lives."""


@dataclass(frozen=True, slots=True)
class HandStarted:
    """A virtual host that runs, and how to reach it."""

    host: VirtualHost
    directory: Path
    """Private; holds key, disk and logs, and goes with the host."""
    port: int
    key: Path
    known_hosts: Path
    subject: str
    """QEMU under test and kernel, for people."""

    @property
    def url(self) -> str:
        """What ``--host`` takes."""
        return f"ssh://root@127.0.0.1:{self.port}?key={self.key}"

    def lines(self) -> list[str]:
        """Return what a person needs, one fact a line."""
        return [
            f"host:    {self.subject}",
            f"log in:  ssh -i {self.key} -o UserKnownHostsFile={self.known_hosts}"
            f" -p {self.port} root@127.0.0.1",
            f"run:     trapline run --host '{self.url}'",
            f"console: {self.host.machine.evidence / 'console.log'}",
            f"QMP:     {self.host.machine.sockets.qmp_debug}",
            "Ctrl-C ends it; nothing is left behind",
        ]


def settings_of(**options: str | None) -> Settings:
    """Return the settings of a run started here with *options* (None: not given)."""
    return load_settings(options, os.environ, find_file(Path.cwd(), Places.find().root))


@contextlib.contextmanager
def started(settings: Settings, *, port: int = 0) -> Iterator[HandStarted]:
    """Have a virtual host while inside; its key and disk are removed with it.

    :param port: loopback port of its SSH; 0 for a free one.
    """
    parts = Parts(settings)
    parts.gather()
    directory = paths.runtime_dir()
    try:
        key = make_key(directory)
        host = open_virtual(parts, key=key, evidence=directory, ssh_port=port)
        try:
            taken = ssh_port(host.machine)
            known_hosts = directory / "known_hosts"
            known_hosts.write_text(f"[127.0.0.1]:{taken} {host.ssh.host_key}\n", encoding="ascii")
            yield HandStarted(
                host, directory, taken, key.private, known_hosts,
                f"kernel {parts.kernel.release}, {parts.l0_qemu.label} {parts.l0_qemu.version},"
                f" devices {', '.join(parts.devices)}",
            )  # fmt: skip
        finally:
            host.close()
    finally:
        paths.remove_runtime_dir(directory)


def stay(host: VirtualHost) -> None:
    """Return when SIGINT, SIGTERM or SIGHUP came.

    :raise MachineError: QEMU ended by itself.
    :raise GuestCrashed: the kernel of the host did.
    """
    stop = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        while not stop.wait(_LOOK):
            host.machine.check()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
