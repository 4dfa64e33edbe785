"""smmuv3 of Arm machines: who may follow its mappings, and the names it gives.

Its machines are emulated on the virtual host; what is assigned and vhost are real there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from harness.guest.keys import RunKey
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import root_ports
from harness.lab.arm import open_arm_host
from harness.lab.nested import prepare
from harness.lab.parts import Parts
from harness.machine.bare_pci import ARM_VIRT, BarePci, connect, with_qtest
from harness.machine.bare_virtio import BareVirtio
from harness.machine.command import Device, MachineSpec
from harness.machine.outcome import Outcome, outcome_of_doing, outcome_of_launch
from harness.model.memory_map import MemoryMap
from harness.model.pci import Bdf
from harness.model.version import QemuVersion
from harness.suite_fixtures import Launch
from harness.testing import must_fail, skip

pytestmark = [pytest.mark.full, pytest.mark.label("Arm machine emulated, runs no guest")]

NO_MAP = "requires iommu MAP notifier which is not currently supported"
NO_DEVICE_IOTLB = "SMMUv3 does not support dev-iotlb yet"
EDU = Device("edu", "edu", "pcie.0", "0x5")
EDU_DEVFN = 0x28
PORT, VSOCK = Bdf(0, 0, 8, 0), Bdf(0, 1, 0, 0)


def arm_machine(*devices: Device, smmu: bool = True) -> MachineSpec:
    """Return an Arm machine with *devices* that has not run."""
    return MachineSpec(
        "arm",
        machine="virt",
        machine_options={"iommu": "smmuv3"} if smmu else {},
        memory_mib=64,
        devices=devices,
        paused=True,
    )


@pytest.fixture(scope="module")
def arm_host(
    lab_parts: Parts, run_key: RunKey, shared_evidence: Callable[[str], Path]
) -> Iterator[VirtualHost]:
    """A virtual host whose QEMU has Arm machines."""
    opened = open_arm_host(lab_parts, key=run_key, evidence=shared_evidence("arm-host"))
    try:
        yield opened
    finally:
        opened.close()


def check_refused(outcome: Outcome, words: str) -> None:
    """QEMU ends in an orderly way with *words*."""
    assert not outcome.accepted, f"accepted what must be refused: {words}"
    assert outcome.orderly and words in outcome.said, outcome


def assign(host: VirtualHost, evidence: Path, *, smmu: bool) -> Outcome:
    """Give the nvme of *host* to an Arm machine."""
    function = prepare(host, ["nvme"])["nvme"]
    device = Device("vfio-pci", "nvme", "pcie.0", "0x6", {"host": str(function.bdf)})
    spec = arm_machine(device, smmu=smmu)
    return outcome_of_launch(lambda: host.launch(spec, evidence=evidence))


@pytest.mark.rule("VIO-16")
def test_assigned_functions_are_refused(arm_host: VirtualHost, evidence: Path) -> None:
    """smmuv3 takes no assigned function: it cannot tell vfio of new mappings."""
    check_refused(assign(arm_host, evidence, smmu=True), f"device 00.06.0 {NO_MAP}")


@pytest.mark.negative_control("VIO-16")
def test_a_machine_without_smmu_is_noticed(arm_host: VirtualHost, evidence: Path) -> None:
    """A machine without an IOMMU takes it, and the check fails."""
    said = assign(arm_host, evidence, smmu=False)

    with must_fail():
        check_refused(said, f"device 00.06.0 {NO_MAP}")


def start_vhost(host: VirtualHost, launch: Launch, *, ats: bool) -> Outcome:
    """Start a vhost device of an Arm machine below smmuv3."""
    host.run("modprobe vhost_vsock")
    vsock = Device(
        "vhost-vsock-pci", "vsock", "rp0", "0",
        {"guest-cid": 7, "iommu_platform": True, "ats": True},
    )  # fmt: skip
    machine = launch(with_qtest(arm_machine(*root_ports(1), vsock)), on=host)
    with contextlib.closing(connect(machine)) as qtest:
        machine.qmp.execute("cont")
        driver = BareVirtio(BarePci(qtest, ARM_VIRT), PORT, VSOCK)
        if ats:
            driver.enable_ats()
        return outcome_of_doing(machine, driver.start)


@pytest.mark.rule("VIO-17")
def test_vhost_with_ats_is_refused(arm_host: VirtualHost, launch: Launch) -> None:
    """smmuv3 cannot tell vhost of what its device may keep: a driver with ATS ends QEMU."""
    check_refused(start_vhost(arm_host, launch, ats=True), NO_DEVICE_IOTLB)


@pytest.mark.negative_control("VIO-17")
def test_vhost_without_ats_is_noticed(arm_host: VirtualHost, launch: Launch) -> None:
    """A driver that leaves ATS alone starts the device, and the check fails."""
    came = start_vhost(arm_host, launch, ats=False)

    with must_fail():
        check_refused(came, NO_DEVICE_IOTLB)


@dataclass(frozen=True, slots=True)
class Names:
    """What smmuv3 calls its regions."""

    regions: frozenset[str]
    """Roots and rows that begin with ``smmu``."""

    @classmethod
    def of(cls, found: MemoryMap) -> Names:
        """Return those in *found*."""
        spaces = {name for view in found for s in view.spaces for name in (s.name, s.root)}
        rows = {row.name for view in found for row in view.regions}
        return cls(frozenset(n for n in spaces | rows if n and n.startswith("smmu")))


def check_names(names: Names, version: QemuVersion) -> None:
    """The edu has its region by its devfn, and the views of newer builds are there or not."""
    of_edu = [n for n in names.regions if n.startswith(f"smmuv3-iommu-memory-region-{EDU_DEVFN}-")]
    assert len(of_edu) == 1, sorted(names.regions)
    assert ("smmu-memory-view" in names.regions) == version.has(11, 0), sorted(names.regions)


@pytest.mark.rule("VIO-19")
def test_names_are_those_of_the_version(arm_host: VirtualHost, launch: Launch) -> None:
    """Each function has a region named by its devfn; 11.0 brought a view of all memory."""
    found = launch(arm_machine(EDU), on=arm_host).memory_map()

    check_names(Names.of(found), arm_host.qemu.version)


@pytest.mark.negative_control("VIO-19")
def test_other_names_are_noticed(arm_host: VirtualHost, launch: Launch) -> None:
    """A function somewhere else, and the names of another release, fail the check."""
    version = arm_host.qemu.version
    elsewhere = launch(arm_machine(replace(EDU, addr="0x7")), on=arm_host).memory_map()
    other = QemuVersion(10, 2) if version.has(11, 0) else QemuVersion(11, 1)
    here = Names(Names.of(elsewhere).regions | {f"smmuv3-iommu-memory-region-{EDU_DEVFN}-9"})

    with must_fail():
        check_names(Names.of(elsewhere), version)
    with must_fail():
        check_names(here, other)


WITHOUT_IOMMUFD = (
    "vfio-pci endpoint devices without an iommufd backend not allowed when using"
    " arm-smmuv3,accel=on"
)


def accelerated(host: VirtualHost, *, iommufd: bool) -> MachineSpec:
    """Return an Arm machine whose smmuv3 leaves translation to the host's, with the nvme."""
    function = prepare(host, ["nvme"])["nvme"]
    backend: dict[str, str] = {"iommufd": "backend"} if iommufd else {}
    nvme = Device("vfio-pci", "nvme", "pcie.0", "0x6", {"host": str(function.bdf), **backend})
    smmu = Device("arm-smmuv3", "smmu", options={"primary-bus": "pcie.0", "accel": True})
    spec = replace(arm_machine(nvme, smmu=False), iommu=smmu, accel=host.accelerator.option)
    return replace(spec, objects=("iommufd,id=backend",) if iommufd else ())


@pytest.fixture
def smmu_host(arm_host: VirtualHost) -> VirtualHost:
    """A host whose own smmuv3 can translate for a machine's."""
    if "accel" not in arm_host.qemu.features.device_properties("arm-smmuv3"):
        skip("this QEMU has no arm-smmuv3,accel=on", enabled_by="QEMU 11.0 or later")
    if not arm_host.run("uname -m").stdout.startswith("aarch64"):
        skip(
            "QEMU lets arm-smmuv3,accel=on work with KVM of an Arm host only (it says 'SMMUv3"
            " accel=on requires KVM with kernel-irqchip=on support' here)",
            enabled_by="an Arm host with an smmuv3",
        )
    return arm_host


@pytest.mark.rule("VIO-18")
def test_acceleration_wants_iommufd(smmu_host: VirtualHost, evidence: Path) -> None:
    """An smmuv3 that uses the host's takes assigned functions with iommufd only."""
    spec = accelerated(smmu_host, iommufd=False)
    came = outcome_of_launch(lambda: smmu_host.launch(spec, evidence=evidence))

    check_refused(came, WITHOUT_IOMMUFD)


@pytest.mark.negative_control("VIO-18")
def test_a_function_with_iommufd_is_noticed(smmu_host: VirtualHost, evidence: Path) -> None:
    """With it the function is taken, and the check fails."""
    spec = accelerated(smmu_host, iommufd=True)
    came = outcome_of_launch(lambda: smmu_host.launch(spec, evidence=evidence))

    with must_fail():
        check_refused(came, WITHOUT_IOMMUFD)
