"""Hosts that were there before us: this computer, or one behind SSH.

Nothing on them is taken for granted and nothing is left behind: changes are journalled, what
is sent lies in one directory, QEMU dies with the connection.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

from harness.errors import ConfigError, DeviceBusy, HarnessError, NoIommu, Unreachable, WaitTimeout
from harness.guest.local import LocalTransport
from harness.guest.ssh import KnownHost, SshTransport
from harness.guest.transport import Transport
from harness.host import drivers
from harness.host.host import GuestFiles, Host, PlacedQemu
from harness.host.journal import AttributeChange, Journal
from harness.host.locks import HostLocks, host_slug
from harness.host.undo import undo
from harness.model.pci import Bdf

log = logging.getLogger(__name__)

_SETTING = "setting "
"""How names of locks of files begin."""


@dataclass(frozen=True, slots=True)
class SshUrl:
    """``ssh://user@name:port?key=FILE&known_hosts=FILE``."""

    user: str
    name: str
    port: int
    key: Path | None = None
    """None: the keys of ``~/.ssh`` and of the agent."""
    known_hosts: Path | None = None
    """None: ``~/.ssh/known_hosts``, and any key from a loopback address."""

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
        query = parse_qs(parts.query, keep_blank_values=True)
        if unknown := set(query) - {"key", "known_hosts"}:
            raise ConfigError(
                f"{url!r}: not understood: {', '.join(sorted(unknown))}",
                hint="use ssh://user@name:port?key=FILE&known_hosts=FILE",
            )
        files = {word: Path(values[-1]).expanduser().absolute() for word, values in query.items()}
        return cls(
            parts.username or "root", parts.hostname, port,
            files.get("key"), files.get("known_hosts"),
        )  # fmt: skip

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return f"ssh://{self.user}@{name}:{self.port}"

    @property
    def full(self) -> str:
        """With its files, as it is parsed."""
        files = {"key": self.key, "known_hosts": self.known_hosts}
        query = urlencode({word: path for word, path in files.items() if path}, safe="/")
        return f"{self}?{query}" if query else str(self)

    @property
    def is_loopback(self) -> bool:
        """Say whether it is this computer, or a guest of it."""
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.name).is_loopback
        return self.name == "localhost"


def ssh_transport(url: SshUrl, *, timeout: float = 30) -> SshTransport:
    """Log in to *url*.

    :raise ConfigError: a file that it names is not there.
    :raise Unreachable: it does not answer, or refuses us.
    """
    for word, path in (("key", url.key), ("known_hosts", url.known_hosts)):
        if path is not None and not path.is_file():
            raise ConfigError(f"{url}: the file of {word} is not there", seen=str(path))

    def dial() -> socket.socket:
        return socket.create_connection((url.name, url.port), timeout=10)

    transport = SshTransport(
        str(url), dial, key=url.key, user=url.user,
        known=KnownHost(url.name, url.port, url.known_hosts, trust_new=url.is_loopback),
    )  # fmt: skip
    try:
        transport.log_in(timeout=timeout)
    except Unreachable as error:
        if not isinstance(error.__cause__, WaitTimeout):
            raise
        raise Unreachable(
            f"{url} does not answer",
            seen=error.seen,
            hint="is it up, and does ssh reach it? correct --host, or leave it out",
        ) from error
    return transport


class PhysicalHost(Host):
    """A host that outlives us: `LocalHost`, `SshHost`.

    :param run: directory of the run, told to others that want the same devices.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        url: str,
        level: str,
        probe: str,
        qemu: PlacedQemu,
        guest: GuestFiles,
        run: str,
    ) -> None:
        journal = Journal.of_host(canonical(url), url=url, boot=boot_id(transport))
        super().__init__(transport, level=level, journal=journal, qemu=qemu, guest=guest)
        self.url = url
        self.locks = HostLocks.of_host(canonical(url), run=run)
        self._probe = probe
        self._claimed: dict[Bdf, str] = {}
        if isinstance(transport, SshTransport):
            transport.probe = probe
        self.put_back_settings()
        if left := journal.pending():
            log.warning(
                "%s: %d changes of other runs are not put back yet; if those runs have ended,"
                " trapline restore does it", transport.name, len(left),
            )  # fmt: skip

    @property
    def probe_path(self) -> str:
        """Where the static helper was brought to."""
        return self._probe

    def claim(self, bdf: Bdf) -> str:
        """Hold the lock of the IOMMU group of *bdf* until the host is closed.

        :raise DeviceBusy: another run holds it.
        :raise NoIommu: the function is in no group, so nothing isolates it.
        """
        if bdf not in self._claimed:
            group = drivers.group_of(self, bdf)
            if group is None:
                raise NoIommu(
                    f"{bdf} on {self.name} is in no IOMMU group and cannot be assigned",
                    seen=f"kernel command line: {self.command_line}",
                    hint="enable VT-d or AMD-Vi in the firmware and boot with intel_iommu=on;"
                    " trapline doctor says what is missing",
                )
            name = f"IOMMU group {group}"
            self.locks.take(name, what=f"{bdf} on {self.name}")
            self._claimed[bdf] = name
        return self._claimed[bdf]

    @contextlib.contextmanager
    def alone_with(self, path: str) -> Iterator[str]:
        """Hold the lock of the file *path* while inside, and longer if it could not be put back.

        :raise DeviceBusy: another run holds it.
        """
        lock = f"{_SETTING}{host_slug(path)}"
        if lock in self.locks.held:
            yield lock
            return
        self.locks.take(lock, what=f"{path} on {self.name}")
        try:
            yield lock
        finally:
            if all(change.group != lock for change in self.journal.ours()):
                self.locks.let_go(lock)

    def put_back_settings(self) -> None:
        """Put back what dead runs left set for everybody: a host is judged as it was.

        Drivers of functions wait for who takes these, or for ``trapline restore``.
        """
        for change in self.journal.pending():
            is_setting = isinstance(change, AttributeChange) and change.group.startswith(_SETTING)
            if not is_setting or change.boot != self.journal.boot:
                continue
            try:
                self.locks.take(change.group, what=str(change))
            except DeviceBusy:
                continue
            try:
                undo(self, self.journal, change)
                log.warning("%s: put back what a run that was killed left: %s", self.name, change)
            except HarnessError as error:
                log.warning("%s: left changed by a run that was killed: %s", self.name, error)
            finally:
                self.locks.let_go(change.group)

    def close(self) -> None:
        """Put back what was changed, then let others have the devices."""
        try:
            super().close()
        finally:
            self.locks.release()


class SshHost(PhysicalHost):
    """A host behind SSH."""


class LocalHost(PhysicalHost):
    """This computer."""


def canonical(url: str) -> str:
    """Return the name of the host *url*, the same however it is spelt: its files left out."""
    return url if url == "local" else str(SshUrl.parse(url))


def boot_id(transport: Transport) -> str:
    """Return what tells one boot of that system from the next."""
    return transport.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip()


def connect(url: str) -> Transport:
    """Reach the host *url*: ``local`` or ``ssh://…``.

    :raise ConfigError: it names no host, or binding drivers here needs root.
    :raise Unreachable: it does not answer, or refuses us.
    """
    if url != "local":
        return ssh_transport(SshUrl.parse(url))
    if os.geteuid() != 0:
        raise ConfigError(
            "--host local binds drivers and needs root",
            hint="run as root, or use the default virtual host, which needs none",
        )
    return LocalTransport()
