"""Virtio devices behind an IOMMU: vhost ones that a bare driver starts, and those of a guest.

===============  ===============================================================================
``start_vhost``  starts a vhost device below some IOMMU and says what came of it
``translating``  a booted guest with intel-iommu and virtio devices of every sort (shared)
===============  ===============================================================================
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest

from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import root_ports
from harness.lab.nested import Nested
from harness.lab.resident import Resident
from harness.lab.vtd import properties_of
from harness.machine.bare_pci import Q35, RESTING_FIRMWARE, BarePci, connect, with_qtest
from harness.machine.bare_virtio import ACCESS_PLATFORM, VERSION_1, BareVirtio, Started
from harness.machine.command import Device, MachineSpec
from harness.machine.outcome import Outcome, outcome_of_doing
from harness.machine.vtd import enable_translation, traced
from harness.model.pci import Bdf
from harness.model.vtd.properties import arguments
from harness.parse.trace_log import TraceEvent
from harness.suite_fixtures import Launch

PORT, VSOCK = Bdf(0, 0, 8, 0), Bdf(0, 1, 0, 0)
FAULT = "vtd_dmar_fault"
_NODE = "/dev/vhost-vsock"
_FIRMWARE = "/run/trapline-rest.bin"


@dataclass(frozen=True, slots=True)
class VhostStart:
    """What came of starting a vhost device.

    :param started: None: QEMU ended.
    :param faults: that intel-iommu reported meanwhile; its tables are empty.
    """

    outcome: Outcome
    started: Started | None = None
    faults: tuple[TraceEvent, ...] = ()


class StartVhost(Protocol):
    """Starts a vhost device; see `start_vhost`."""

    def __call__(self, iommu: Device, *, ats: bool = False, platform: bool = True) -> VhostStart:
        """Say what came of it.

        :param ats: the driver enables ATS.
        :param platform: ``iommu_platform=on``.
        """


@pytest.fixture
def vhost_host(host: Host) -> Host:
    """The host, able to run vhost-vsock."""
    if isinstance(host, VirtualHost):
        host.run("modprobe vhost_vsock")
    if not host.exists(_NODE):
        pytest.skip(f"{host.name} has no {_NODE}: modprobe vhost_vsock there would enable this")
    host.transport.write(_FIRMWARE, RESTING_FIRMWARE)
    return host


@pytest.fixture
def start_vhost(vhost_host: Host, launch: Launch) -> StartVhost:
    """Start a vhost device in a machine that does nothing else, translation turned on."""

    def start(iommu: Device, *, ats: bool = False, platform: bool = True) -> VhostStart:
        vsock = Device(
            "vhost-vsock-pci", "vsock", "rp0", "0",
            {"guest-cid": 7, "iommu_platform": platform, "ats": True},
        )  # fmt: skip
        spec = MachineSpec(
            "vhost",
            accel=vhost_host.accelerator.option,
            machine_options={"kernel-irqchip": "split"},
            memory_mib=16,
            iommu=iommu,
            devices=(*root_ports(1), vsock),
            paused=True,
            extra=("-bios", _FIRMWARE),
        )
        machine = launch(with_qtest(spec.saying("-trace", FAULT)))
        came: list[Started] = []
        with contextlib.closing(connect(machine)) as qtest:
            machine.qmp.execute("cont")  # vhost runs in a machine that runs
            if iommu.driver == "intel-iommu":
                enable_translation(qtest)
            driver = BareVirtio(BarePci(qtest, Q35), PORT, VSOCK)
            if ats:
                driver.enable_ats()

            def go() -> None:
                came.append(driver.start(VERSION_1 | ACCESS_PLATFORM))

            outcome = outcome_of_doing(machine, go)
        if not came:
            return VhostStart(outcome)
        return VhostStart(outcome, came[0], traced(machine))

    return start


@dataclass(frozen=True, slots=True)
class GuestDisk:
    """A disk of the booted guest: zeros, in no file.

    :param driver: QEMU's device.
    :param where: its slot in the machine.
    """

    name: str
    driver: str
    where: Bdf
    options: Mapping[str, str | int | bool] = field(default_factory=dict)
    bus: str = "pcie.0"

    def device(self) -> Device:
        """Return it as the machine is given it."""
        addr = f"{self.where.device:#x}" if self.bus == "pcie.0" else "0"
        return Device(
            self.driver, self.name, self.bus, addr, {"drive": f"{self.name}-data", **self.options}
        )

    def backend(self) -> tuple[str, ...]:
        """Return the words for what is behind it."""
        size = 16 << 20
        node = f"null-co,node-name={self.name}-data,size={size},read-zeroes=on"
        return ("-blockdev", node)


_PLATFORM: Mapping[str, str | int | bool] = {"iommu_platform": True, "disable-legacy": "on"}
DISKS: Mapping[str, GuestDisk] = {
    disk.name: disk
    for disk in (
        GuestDisk("plain", "virtio-blk-pci", Bdf(0, 0, 0x10, 0)),
        GuestDisk("platform", "virtio-blk-pci", Bdf(0, 0, 0x11, 0), _PLATFORM),
        GuestDisk("ats", "virtio-blk-pci", Bdf(0, 1, 0, 0), {**_PLATFORM, "ats": True}, bus="rp0"),
        GuestDisk("nvme", "nvme", Bdf(0, 0, 0x12, 0), {"serial": "emulated"}),
    )
}
"""Disks of the booted guest, by name."""


@pytest.fixture
def translating(resident: Resident, evidence: Path) -> Nested:
    """A booted guest with intel-iommu and a disk of every sort; nothing is assigned to it."""
    properties = properties_of(resident.host)
    options = arguments("intel-iommu", {"intremap": True, "device-iotlb": True}, properties)
    guest = resident.guest(
        "virtio-guest",
        devices=[],
        iommu=Device("intel-iommu", "iommu", options=options),
        append="intel_iommu=on iommu.strict=1",
        emulated=[disk.device() for disk in DISKS.values()],
        extra=[word for disk in DISKS.values() for word in disk.backend()],
    )
    guest.machine.evidence_for(evidence)
    assert guest.guest is not None
    guest.guest.run("modprobe virtio_blk")
    return guest
