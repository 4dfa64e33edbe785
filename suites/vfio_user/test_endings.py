"""Ends: of the machine, of the device's connection, of the server; nothing is left of them."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.guest.keys import RunKey
from harness.lab.parts import Parts
from harness.lab.plugged import Plugged, Seat
from harness.lab.vfio_user import Stage, open_device_guest
from harness.testing import must_fail
from harness.wait import wait_until
from suites.vfio_user.conftest import Prepared
from suites.vfio_user.devices import Shades

OpenStage = Callable[[], Stage]


def descriptors() -> set[str]:
    """Return what this process has open: sockets, eventfds, memory files."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
    return found


@pytest.fixture
def own_stage(device_parts: Parts, run_key: RunKey, evidence: Path) -> Iterator[OpenStage]:
    """Make a stage of the test's own with one device in it, ``shades``."""
    with contextlib.ExitStack() as stack:

        def make() -> Stage:
            guest = open_device_guest(device_parts, key=run_key, evidence=evidence)
            stage = stack.enter_context(
                contextlib.closing(Stage(guest, device_parts.l0_qemu.version))
            )
            stage.plug(Seat("shades", Shades(), "rp0"))
            return stage

        yield make


def check_nothing_left(plugged: Plugged, before: set[str]) -> None:
    """No socket, no process, no descriptor, no error."""
    machine = plugged.machine
    left = descriptors() - before
    assert not left, f"descriptors that are left: {sorted(left)}"
    assert not plugged.served.socket.exists(), f"{plugged.served.socket} is left"
    assert machine.exit_status is not None, f"{machine.spec.name} still runs"
    assert not plugged.served.failures, list(plugged.served.failures)


def test_nothing_is_left_of_a_stage(own_stage: OpenStage) -> None:
    """When a stage was closed, no socket, process or descriptor of it is left."""
    before = descriptors()
    stage = own_stage()
    shades = stage.plugged["shades"]
    shades.read(0, 0, count=1)

    stage.close()

    wait_until("connections of SSH closed", lambda: descriptors() <= before, timeout=5)
    check_nothing_left(shades, before)


def test_what_is_left_is_noticed(guest_stage: Prepared) -> None:
    """The check fails while the stage is there."""
    with must_fail():
        check_nothing_left(guest_stage["shades"], descriptors())


def check_let_go(plugged: Plugged) -> None:
    """The device has no client, and holds nothing of one."""
    device = plugged.device
    vectors = [kind.triggers for kind in device.irqs.types if kind.triggers]
    held = plugged.served.connected, device.dma.windows, vectors
    assert held == (False, (), []), held


def test_device_lets_go_of_a_guest_that_ends(own_stage: OpenStage) -> None:
    """When the guest switches itself off, the device lets go of memory and interrupts.

    QEMU speaks its last words to a device that still answers: no error on either side.
    """
    stage = own_stage()
    shades, machine = stage.plugged["shades"], stage.host.machine

    stage.host.run("echo o > /proc/sysrq-trigger", check=False)
    status = machine.wait_end(timeout=20)

    wait_until("the device alone", lambda: not shades.served.connected, timeout=5)
    check_let_go(shades)
    assert (status, list(shades.served.peer_errors)) == (0, []), machine.stderr()


def test_client_that_is_there_is_noticed(guest_stage: Prepared) -> None:
    """The check fails while a QEMU is connected."""
    with must_fail():
        check_let_go(guest_stage["shades"])
