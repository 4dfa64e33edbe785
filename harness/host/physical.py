"""Hosts that were there before us: this computer, or one behind SSH.

Nothing on them is taken for granted and nothing is left behind: changes are journalled, what
is sent lies in one directory, QEMU dies with the connection.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from harness.errors import ConfigError
from harness.guest.local import LocalTransport
from harness.guest.ssh import SshTransport
from harness.guest.system import System
from harness.guest.transport import Transport
from harness.host.host import GuestFiles, Host, PlacedQemu
from harness.host.journal import Journal


@dataclass(frozen=True, slots=True)
class SshUrl:
    """``ssh://user@name:port?key=FILE``."""

    user: str
    name: str
    port: int
    key: Path | None

    @classmethod
    def parse(cls, url: str) -> SshUrl:
        """Read such a URL.

        :raise ConfigError: it is something else.
        """
        parts = urlsplit(url)
        try:
            port = parts.port or 22
        except ValueError:
            port = 0
        if parts.scheme != "ssh" or not parts.hostname or not port:
            raise ConfigError(
                f"not a host: {url!r}",
                hint="use virtual, local, or ssh://user@name:port?key=FILE",
            )
        key = parse_qs(parts.query).get("key", [""])[0]
        if key and not Path(key).is_file():
            raise ConfigError(f"the key of {url!r} is not there", seen=key)
        return cls(parts.username or "root", parts.hostname, port, Path(key) if key else None)

    def __str__(self) -> str:
        return f"ssh://{self.user}@{self.name}:{self.port}"


def ssh_transport(url: SshUrl, *, timeout: float = 30) -> SshTransport:
    """Log in to *url*.

    :raise Unreachable: it does not answer, or refuses us.
    """

    def dial() -> socket.socket:
        return socket.create_connection((url.name, url.port), timeout=10)

    transport = SshTransport(str(url), dial, key=url.key, user=url.user)
    transport.log_in(timeout=timeout)
    return transport


class PhysicalSystem(System):
    """A system to which the static helper had to be brought."""

    def __init__(self, transport: Transport, *, level: str, probe: str) -> None:
        super().__init__(transport, level=level)
        self._probe = probe
        if isinstance(transport, SshTransport):
            transport.probe = probe

    @property
    def probe_path(self) -> str:
        """Where it was brought to."""
        return self._probe


class PhysicalHost(Host):
    """A host that outlives us: `LocalHost`, `SshHost`."""

    def __init__(
        self,
        transport: Transport,
        *,
        url: str,
        level: str,
        probe: str,
        qemu: PlacedQemu,
        guest: GuestFiles,
    ) -> None:
        super().__init__(
            transport, level=level, journal=Journal.of_host(url), qemu=qemu, guest=guest
        )
        self.url = url
        self._probe = probe
        if isinstance(transport, SshTransport):
            transport.probe = probe

    @property
    def probe_path(self) -> str:
        """Where the static helper was brought to."""
        return self._probe


class SshHost(PhysicalHost):
    """A host behind SSH."""


class LocalHost(PhysicalHost):
    """This computer."""

    @staticmethod
    def make_transport() -> LocalTransport:
        """Return the transport of this computer.

        :raise ConfigError: binding drivers needs root.
        """
        if os.geteuid() != 0:
            raise ConfigError(
                "--host local binds drivers and needs root",
                hint="run as root, or use the default virtual host, which needs none",
            )
        return LocalTransport()
