"""Guests with an IOMMU that is not intel-iommu.

================  ===============================================================================
``virtio_guest``  a booted guest with virtio-iommu and an assigned nvme (shared)
``amd_guest``     a booted guest with amd-iommu, nothing assigned (shared)
``looked_at``     the map of a machine that never runs, with some IOMMU
================  ===============================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.guest.guest import Guest
from harness.host.host import Host
from harness.host.virtual_spec import root_ports
from harness.lab.nested import Nested
from harness.lab.resident import Resident
from harness.machine.command import Device, MachineSpec
from harness.model.memory_map import MemoryMap
from harness.suite_fixtures import Launch
from harness.testing import skip

VIRTIO = Device("virtio-iommu-pci", "iommu", "pcie.0", "0x1e")
AMD = Device("amd-iommu", "iommu", options={"intremap": True})

LookAt = Callable[[Device], MemoryMap]


def os_of(nested: Nested) -> Guest:
    """Return the guest; there must be one."""
    assert nested.guest is not None
    return nested.guest


def has(host: Host, driver: str) -> None:
    """Skip where the QEMU under test does not have *driver*."""
    if not host.qemu.features.has_device(driver):
        skip(
            f"QEMU {host.qemu.version} has no {driver}", enabled_by="a build that has it (--qemu)"
        )


@pytest.fixture
def virtio_guest(resident: Resident, host: Host, evidence: Path) -> Nested:
    """A booted guest with virtio-iommu; the nvme of the host is assigned to it."""
    has(host, VIRTIO.driver)
    names = [name for name in ("nvme",) if name in resident.names]
    guest = resident.guest(
        "virtio-iommu-guest", devices=names, iommu=VIRTIO, append="trapline.modules=virtio_iommu"
    )
    guest.machine.evidence_for(evidence)
    return guest


@pytest.fixture
def amd_guest(resident: Resident, host: Host, evidence: Path) -> Nested:
    """A booted guest with amd-iommu."""
    has(host, AMD.driver)
    guest = resident.guest("amd-iommu-guest", devices=[], iommu=AMD)
    guest.machine.evidence_for(evidence)
    return guest


def machine_with(host: Host, iommu: Device, *devices: Device, name: str = "viommu") -> MachineSpec:
    """Return a machine with that IOMMU which executes nothing."""
    return MachineSpec(
        name,
        accel=host.accelerator.option,
        machine_options={"kernel-irqchip": "split"},
        memory_mib=64,
        iommu=iommu,
        devices=(*root_ports(2), *devices),
        paused=True,
    )


@pytest.fixture
def looked_at(host: Host, launch: Launch) -> LookAt:
    """Look at the map of a machine with some IOMMU, a port and an edu; it never runs."""

    def look(iommu: Device) -> MemoryMap:
        has(host, iommu.driver)
        edu = Device("edu", "edu", "pcie.0", "0xc")
        return launch(machine_with(host, iommu, edu, name=iommu.driver)).memory_map()

    return look
