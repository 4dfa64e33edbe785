"""Asked to go before the machine ran, a device can never be asked again.

See docs/findings/unplug-before-the-clock-runs.md. Not collected unless it is named.
"""

import pytest

from harness.errors import QmpFailed, WaitTimeout
from harness.host.host import Host
from harness.machine.command import Device
from harness.machine.machine import Machine
from harness.suite_fixtures import Launch
from harness.wait import wait_until
from suites.lifecycle.conftest import spec_with

PATIENCE = 10
"""Seconds; the machine takes requests as soon as its time runs."""


def taken(machine: Machine) -> bool:
    """Ask the device to go; say whether QEMU took the request."""
    try:
        machine.qmp.execute("device_del", {"id": "rng"})
    except QmpFailed as refused:
        assert refused.error_class, refused
        return False
    return True


def check_taken_again(machine: Machine) -> None:
    """A device that does not answer can be asked again; ACPI puts no limit to it."""
    try:
        wait_until("the device can be asked again", lambda: taken(machine), timeout=PATIENCE)
    except WaitTimeout:
        pytest.fail(f"every request of {PATIENCE} s was refused, though the machine runs")


@pytest.fixture
def machine(host: Host, launch: Launch) -> Machine:
    """A machine that has not run yet, with a device behind a root port."""
    return launch(spec_with(host, Device("virtio-rng-pci", "rng", "rp3", "0")))


def test_asked_after_it_ran(machine: Machine) -> None:
    """A device that was asked to go can be asked again: so it is."""
    machine.qmp.execute("cont")
    assert taken(machine)

    check_taken_again(machine)


def test_asked_before_it_ran(machine: Machine) -> None:
    """A device that was asked to go before the machine ran can be, too: it cannot."""
    assert taken(machine)
    machine.qmp.execute("cont")

    check_taken_again(machine)
