"""Machines for the rules about QEMU as an environment for tests.

============  ===================================================================================
``firmware``  a machine whose firmware ran and found nothing to boot (shared)
============  ===================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.host.host import Host
from harness.machine.command import Device, MachineSpec
from harness.machine.firmware import BUS_MASTER, read_command, run_firmware, talkative
from harness.machine.machine import Machine

USED = ("nvme", "ahci", "xhci")
"""Controllers of disks: the firmware looks for something to boot on them."""
UNUSED = ("nic", "edu")
"""The card has no ROM to boot from."""


@dataclass(frozen=True, slots=True)
class Firmware:
    """The machine, and who was bus master before its firmware ran and after."""

    machine: Machine
    before: frozenset[str]
    after: frozenset[str]


def masters(machine: Machine) -> frozenset[str]:
    """Return the ids of the devices that are bus masters."""
    places = {name: machine.function_of(name).bdf for name in (*USED, *UNUSED)}
    return frozenset(n for n, bdf in places.items() if read_command(machine, bdf) & BUS_MASTER)


@pytest.fixture(scope="package")
def firmware(host: Host, shared_evidence: Callable[[str], Path]) -> Iterator[Firmware]:
    """A machine without an operating system, paused when its firmware was done."""
    spec = MachineSpec(
        "firmware",
        accel=host.accelerator.option,
        memory_mib=64,
        devices=(
            Device("nvme", "nvme", "pcie.0", "0x10", {"serial": "null", "drive": "null"}),
            Device("ahci", "ahci", "pcie.0", "0x11"),
            Device("qemu-xhci", "xhci", "pcie.0", "0x12"),
            Device("e1000e", "nic", "pcie.0", "0x13", {"romfile": ""}),
            Device("edu", "edu", "pcie.0", "0x14"),
        ),
        extra=("-blockdev", "null-co,node-name=null,size=1048576,read-zeroes=on"),
    )
    with host.launch(talkative(spec), evidence=shared_evidence("firmware")) as machine:
        before = masters(machine)
        run_firmware(machine)
        machine.qmp.execute("stop")
        yield Firmware(machine, before, masters(machine))
