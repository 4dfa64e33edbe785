"""The default host: a virtual machine with a VT-d IOMMU and devices, on this computer."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, MachineDied, QmpFailed, Unreachable, WaitTimeout
from harness.guest.keys import RunKey
from harness.guest.local import LocalTransport
from harness.guest.ssh import SshTransport
from harness.guest.wake import wake
from harness.host.host import GuestFiles, Host, PlacedQemu
from harness.host.journal import Journal
from harness.machine.command import MachineSpec
from harness.machine.launch import Launch, Runnable
from harness.machine.machine import Machine
from harness.machine.saved_state import SavedState, go_on, to_go_on
from harness.parse.hmp import forwarded_port
from harness.step import step
from harness.wait import hear_guards

WAKE_UP_CALLS = 1
"""Seconds between two packets to an idle system of ours.

Under TCG, with a guest of its own, a host was seen to sleep for good, its next timer interrupt
lost, until something else came. So something comes: it sleeps a second at most.
"""

_A_MOMENT = 5
"""Seconds in which a guest can be stopped."""

log = logging.getLogger(__name__)

_LIVING: weakref.WeakSet[VirtualHost] = weakref.WeakSet()


def living() -> tuple[VirtualHost, ...]:
    """Return the virtual hosts of this process that were opened and not closed."""
    return tuple(_LIVING)


@dataclass(frozen=True, slots=True)
class Left:
    """A machine that was left running in a host when that was saved."""

    spec: MachineSpec
    """Its accelerator is the host's."""
    directory: str
    distrust: Callable[[str], None] = lambda why: None
    """Hears why the guest is of no use: the state that it came from is made again."""


class VirtualHost(Host):
    """A host that is a guest of ours. Make one with `VirtualHost.boot`.

    ``machine`` is its QEMU process: lab equipment, not the subject.
    """

    def __init__(
        self, machine: Machine, transport: SshTransport, *, qemu: PlacedQemu, guest: GuestFiles
    ) -> None:
        super().__init__(transport, level="L1", journal=Journal(None), qemu=qemu, guest=guest)
        self.machine = machine
        self.left: Left | None = None
        """A guest that is up in it and waits for who takes it over; nothing is assigned."""
        self._restless = False
        _LIVING.add(self)
        machine.went_on = self._went_on

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
                wait_until_ready(machine, timeout=timeout)
                transport = log_in_over_forward(machine, None, key=key)
            return cls(machine, transport, qemu=qemu, guest=guest)
        except BaseException:
            machine.kill()
            raise

    @classmethod
    def restore(
        cls,
        spec: MachineSpec,
        state: SavedState,
        *,
        l0_qemu: Runnable,
        key: RunKey,
        qemu: PlacedQemu,
        guest: GuestFiles,
        evidence: Path,
        meanwhile: Callable[[Machine], None] = lambda machine: None,
    ) -> VirtualHost:
        """Go on from *state*, which was saved of *spec*, as a system of its own.

        :param meanwhile: called as soon as it runs, before anybody logs in.
        :raise StateBroken: QEMU does not take the state.
        :raise MachineError: QEMU could not be started, or died.
        :raise GuestError: the system does not wake, or SSH did not come.
        """
        # QEMU opens memory for writing even if it shall be private, unless it is told not to.
        read_only = state.memory.exists() and not os.access(state.memory, os.W_OK)
        machine = Machine.launch(
            to_go_on(spec, state, read_only=read_only),
            Launch(LocalTransport(), l0_qemu, evidence, level="L1"),
        )
        try:
            go_on(machine.qmp, state, guard=machine.check_alive)
            meanwhile(machine)
            transport = log_in_over_forward(machine, None, key=key)
            return cls(machine, transport, qemu=qemu, guest=guest)
        except BaseException:
            machine.kill()
            raise

    def stand_still(self) -> None:
        """Stop it until somebody wants it; see `Machine.stand_still`. One that hangs goes on.

        Its guests stop first: under TCG a vCPU that runs a guest may never hear of a ``stop``,
        and QEMU waits for it without end (docs/findings/stop-not-heard.md). Where a guest waits
        to be taken over, which nobody here can stop, the host goes on.
        """
        if self.machine.stands_still or self.left is not None or self._restless:
            return
        if not self._is_quiet():
            self._went_on()
            return
        try:
            self.machine.stand_still()
        except QmpFailed as error:
            if error.error_class:
                raise
            log.warning("%s: ended, it will never answer", error.summary)
            self.machine.kill()

    def _is_quiet(self) -> bool:
        """Stop its guests; say whether nothing is on its way to it any more."""
        for guest in tuple(self.machines):
            try:
                guest.stand_still(timeout=_A_MOMENT)
            except MachineDied:
                continue
            except HarnessError as error:
                # Waiting for it before each test would cost more than the host does.
                log.warning("%s does not stand still from now on: %s", self.name, error.summary)
                self._restless = True
                return False
        return self.ssh.fall_silent()

    def _went_on(self) -> None:
        self.ssh.speak_up()
        for guest in tuple(self.machines):
            with contextlib.suppress(HarnessError):  # who needs it will say so
                guest.go_on(timeout=_A_MOMENT)

    def close(self) -> None:
        """End it; nothing needs to be put back, its root was never written."""
        _LIVING.discard(self)
        self.transport.close()
        self.machine.kill()


def wait_until_ready(machine: Machine, *, timeout: float) -> None:
    """Wait until a guest of ours that boots says that it is ready.

    :raise Unreachable: it does not in *timeout* seconds.
    """
    try:
        machine.console.wait_for(
            r"trapline: ready", timeout=timeout, guards=(machine.check,),
            name="the guest does not say that it is ready",
        )  # fmt: skip
    except WaitTimeout as error:
        if machine.console.closed:
            hear_guards(machine.spec.name, (machine.check,))
        raise Unreachable(
            error.summary,
            seen=error.seen,
            evidence=error.evidence,
            hint="still booting: the computer is slow or busy; else the console says why",
        ) from error


def log_in_over_forward(
    machine: Machine, via: SshTransport | None, *, key: RunKey, timeout: float = 60
) -> SshTransport:
    """Wake a guest of ours, which is ready or was restored, and log in to it.

    :param via: the system its QEMU runs on; None for this computer.
    :param timeout: seconds until it must let us in.
    """
    host_key = wake(machine, key.public, timeout=timeout)
    port = ssh_port(machine)

    def dial() -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), timeout=10)

    transport = SshTransport(
        machine.spec.name,
        dial if via is None else (lambda: via.dial_port(port)),
        key=key.private,
        host_key=host_key,
        guards=(machine.check,),
        keepalive=WAKE_UP_CALLS,
    )
    if via is not None:
        via.carries(transport)
    transport.log_in(timeout=timeout)
    return transport


def ssh_port(machine: Machine) -> int:
    """Return the loopback port that leads to port 22 of the guest."""
    return forwarded_port(machine.qmp.hmp("info usernet"), 22)
