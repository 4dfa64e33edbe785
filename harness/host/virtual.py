"""The default host: a virtual machine with a VT-d IOMMU and devices, on this computer."""

from __future__ import annotations

import socket
from pathlib import Path

from harness.errors import Unreachable, WaitTimeout
from harness.guest.keys import RunKey
from harness.guest.local import LocalTransport
from harness.guest.ssh import SshTransport
from harness.host.host import GuestFiles, Host, PlacedQemu
from harness.host.journal import Journal
from harness.machine.command import MachineSpec
from harness.machine.machine import Launch, Machine, Runnable
from harness.parse.hmp import forwarded_port
from harness.step import step


class VirtualHost(Host):
    """A host that is a guest of ours. Make one with `VirtualHost.boot`.

    ``machine`` is its QEMU process: lab equipment, not the subject.
    """

    def __init__(
        self, machine: Machine, transport: SshTransport, *, qemu: PlacedQemu, guest: GuestFiles
    ) -> None:
        super().__init__(transport, level="L1", journal=Journal(None), qemu=qemu, guest=guest)
        self.machine = machine

    @property
    def ssh(self) -> SshTransport:
        """Its connection."""
        assert isinstance(self.transport, SshTransport)
        return self.transport

    @classmethod
    def boot(
        cls,
        spec: MachineSpec,
        *,
        l0_qemu: Runnable,
        key: RunKey,
        qemu: PlacedQemu,
        guest: GuestFiles,
        evidence: Path,
        timeout: float = 180,
    ) -> VirtualHost:
        """Start *spec* and return when commands can be given.

        :raise MachineError: QEMU could not be started, or died.
        :raise GuestError: its kernel crashed, or SSH did not come.
        """
        machine = Machine.launch(spec, Launch(LocalTransport(), l0_qemu, evidence, level="L1"))
        try:
            with step("boot the virtual host"):
                transport = log_in_over_forward(machine, None, key=key.private, timeout=timeout)
            return cls(machine, transport, qemu=qemu, guest=guest)
        except BaseException:
            machine.kill()
            raise

    def close(self) -> None:
        """End it; nothing needs to be put back, its root was never written."""
        self.transport.close()
        self.machine.kill()


def log_in_over_forward(
    machine: Machine,
    via: SshTransport | None,
    *,
    key: Path,
    timeout: float,
    log_in_timeout: float = 60,
) -> SshTransport:
    """Wait for a guest of ours to say that it is ready, and log in to it.

    :param via: the system its QEMU runs on; None for this computer.
    :param timeout: seconds until the guest must say so.
    :param log_in_timeout: seconds from there until it must let us in.
    """
    console = machine.console
    try:
        console.wait_for(
            r"trapline: ready", timeout=timeout, guards=(machine.check,),
            name="the guest does not say that it is ready",
        )  # fmt: skip
    except WaitTimeout as error:
        raise Unreachable(
            error.summary,
            seen=error.seen,
            evidence=error.evidence,
            hint="still booting: the computer is slow or busy; else the console says why",
        ) from error
    host_key = console.wait_for(r"trapline: hostkey (ssh-ed25519 \S+)", timeout=10)[1]
    port = ssh_port(machine)

    def dial() -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), timeout=10)

    transport = SshTransport(
        machine.spec.name,
        dial if via is None else (lambda: via.dial_port(port)),
        key=key,
        host_key=host_key,
        guards=(machine.check,),
    )
    transport.log_in(timeout=log_in_timeout)
    return transport


def ssh_port(machine: Machine) -> int:
    """Return the loopback port that leads to port 22 of the guest."""
    return forwarded_port(machine.qmp.hmp("info usernet"), 22)
