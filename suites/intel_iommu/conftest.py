"""Machines with an intel-iommu, for the tests of this area.

===============  ===============================================================================
``observe``      looks at a paused machine with some `VtdConfig`; each is started once
``guests``       boots a guest on an intel-iommu with some `VtdConfig`, to look at it
``spare``        a function of the host to assign; the resident guest goes
``outcome``      starts a machine that QEMU may refuse; each is started once
``try_case``     the same for a `RefusalCase`
``used_machine`` the machine of ``vtd_guest``, to be spoilt
``vtd_guest``    a booted guest with intel-iommu, caching mode and assigned devices (shared)
===============  ===============================================================================
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from harness.guest.keys import RunKey
from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.lab.driver_guest import boot_guest
from harness.lab.nested import Nested
from harness.lab.parts import Parts
from harness.lab.resident import Resident
from harness.lab.vtd import Observed, Observer, accelerator_for, properties_of
from harness.machine.command import Device, Disk, MachineSpec
from harness.machine.machine import Machine
from harness.machine.outcome import Outcome
from harness.machine.vtd import VtdRegisters, read_registers, refusal_spec
from harness.model.pci import Bdf, PciFunction
from harness.model.vtd.config import VtdConfig
from harness.model.vtd.expected import Irqchip
from harness.model.vtd.refusals import AssignmentRefusal, RefusalCase
from harness.model.vtd.registers import GSTS
from harness.parse.dmesg import IommuBoot, iommu_boot
from harness.suite_needs import needs_kvm
from harness.testing import skip

Observe = Callable[[VtdConfig], Observed]
OutcomeOf = Callable[[MachineSpec], Outcome]
Try = Callable[[RefusalCase], Outcome]

GUEST = VtdConfig.of(intremap=True, caching_mode=True, device_iotlb=True)
"""How the booted guest's intel-iommu is set up."""

TRACED = ("vtd_dmar_enable", "vtd_switch_address_space")
"""Trace events that are on in the booted guest from its first instruction."""

EMULATED = Device("edu", "stray", "pcie.0", "0xd", {"dma_mask": "0xffffffffffffffff"})
"""An emulated function of the booted guest that no driver has."""


@pytest.fixture(scope="package")
def observer(host: Host, shared_evidence: Callable[[str], Path]) -> Observer:
    """Remembers what was seen."""
    return Observer(host, shared_evidence)


def _accel(host: Host, irqchip: Irqchip) -> str:
    accel = accelerator_for(host, irqchip)
    if accel is None:
        needs_kvm(host, f"kernel-irqchip={irqchip.value}")
    return accel


def skip_lacking(host: Host, lacking: str) -> None:
    """Skip if the build cannot be told what the test is about; *lacking* says what and why."""
    if lacking:
        skip(
            f"QEMU {host.qemu.version} cannot be set up so: {lacking}",
            enabled_by="such a build (--qemu)",
        )


@dataclass(frozen=True, slots=True)
class Booted:
    """What a guest showed after its boot.

    :param units: in ``/sys/class/iommu``.
    """

    log: IommuBoot
    groups: Mapping[int, tuple[Bdf, ...]]
    units: tuple[str, ...]
    registers: VtdRegisters

    @property
    def translates(self) -> bool:
        """DMA translation is on."""
        return bool(GSTS.get(self.registers.global_status, "TES"))

    @property
    def remaps(self) -> bool:
        """Interrupt remapping is on."""
        return bool(GSTS.get(self.registers.global_status, "IRES"))


def booted(guest: VirtualHost) -> Booted:
    """Look at *guest*; its kernel log is kept with its evidence."""
    log = guest.kernel_log()
    (guest.machine.evidence / "dmesg.log").write_text(log, encoding="utf-8")
    return Booted(
        iommu_boot(log.splitlines()),
        guest.iommu_groups(),
        tuple(guest.list_directory("/sys/class/iommu")),
        read_registers(guest.machine),
    )


@dataclass(frozen=True, slots=True)
class Guests:
    """Boots small guests, run by the QEMU under test on this computer."""

    host: VirtualHost
    parts: Parts
    key: RunKey

    @contextlib.contextmanager
    def on(
        self,
        unit: VtdConfig,
        words: str,
        *,
        evidence: Path,
        devices: Sequence[Device] = (),
        disks: Sequence[Disk] = (),
    ) -> Iterator[VirtualHost]:
        """Have a guest on an intel-iommu with the options of *unit* while inside.

        The test is skipped if the QEMU under test cannot be told these.

        :param words: for its kernel.
        :param devices: further ones of its machine.
        :param disks: what is behind those of them that are disks.
        """
        properties = properties_of(self.host)
        skip_lacking(self.host, unit.lacking(properties))
        guest = boot_guest(
            self.parts,
            key=self.key,
            evidence=evidence,
            iommu=Device("intel-iommu", "iommu", options=unit.arguments(properties)),
            append=words,
            devices=devices,
            disks=disks,
        )
        with contextlib.closing(guest):
            yield guest


@pytest.fixture(scope="package")
def guests(virtual_host: VirtualHost, parts: Parts, run_key: RunKey) -> Guests:
    """Boot a guest on an intel-iommu, to look at it."""
    return Guests(virtual_host, parts, run_key)


@pytest.fixture
def observe(observer: Observer, host: Host) -> Observe:
    """Look at a paused machine with some set-up of intel-iommu."""

    def look(config: VtdConfig) -> Observed:
        skip_lacking(host, config.lacking(properties_of(host)))
        return observer.observe(config, accel=_accel(host, config.irqchip))

    return look


@pytest.fixture
def try_case(observer: Observer, host: Host) -> Try:
    """Start the machine of a refusal case, and say what came of it."""

    def run(case: RefusalCase) -> Outcome:
        properties = properties_of(host, case.driver)
        spec = refusal_spec(case, accel=host.accelerator.option, properties=properties)
        return observer.outcome(spec)

    return run


@pytest.fixture
def refusal_words(host: Host, refusal: AssignmentRefusal) -> str:
    """What this QEMU says by the rule of *refusal*; skips where it goes by another one."""
    words = refusal.expected(host.qemu.version)
    if words is None:
        skip(f"QEMU {host.qemu.version} does not go by {refusal.rule}", enabled_by=refusal.builds)
    return words


@pytest.fixture
def lazy_host(host: Host) -> Host:
    """The host, where its own IOMMU is not strict.

    Its log says lazy, or it has lazy domains (``DMA-FQ``). Below a vIOMMU with caching mode Linux
    says lazy and makes every domain strict a moment later (VTD-50); of a host that is long up
    the log may be gone.
    """
    said = iommu_boot(host.kernel_log().splitlines()).strict
    kinds = host.run("cat /sys/kernel/iommu_groups/*/type 2>/dev/null", check=False).stdout
    if said is not False and "DMA-FQ" not in kinds.split():
        skip(
            "the IOMMU of the host is strict, by its log and its groups",
            enabled_by="a host started with iommu.strict=0",
        )
    return host


@pytest.fixture
def outcome(observer: Observer) -> OutcomeOf:
    """Start a machine that QEMU may refuse, and say what came of it."""
    return observer.outcome


@pytest.fixture
def spare(resident: Resident) -> PciFunction:
    """A function of the host that is with vfio-pci and in no machine; the resident guest goes."""
    if not resident.names:
        skip(
            "the host has none of the test devices to assign",
            enabled_by="a lab QEMU that has them (--l0-qemu debian:trixie)",
        )
    return resident.free(resident.names[0])


@pytest.fixture
def vtd_guest(resident: Resident, evidence: Path) -> Nested:
    """A booted guest that uses its intel-iommu, with an assigned nvme."""
    guest = resident.guest(
        "vtd-guest",
        devices=[name for name in ("nvme",) if name in resident.names],
        iommu=Device(
            "intel-iommu", "iommu", options=GUEST.arguments(properties_of(resident.host))
        ),
        append="intel_iommu=on iommu.strict=1",
        emulated=(EMULATED,),
        extra=[word for event in TRACED for word in ("-trace", event)],
    )
    guest.machine.evidence_for(evidence)
    return guest


@pytest.fixture
def used_machine(vtd_guest: Nested, resident: Resident) -> Iterator[Machine]:
    """The machine of that guest, to do with as one likes: it ends with the test."""
    if vtd_guest.guest is not None:
        vtd_guest.guest.keep_kernel_log()
        vtd_guest.guest.close()
        vtd_guest.guest = None
    yield vtd_guest.machine
    resident.end(vtd_guest)


@pytest.fixture
def vtd_config(host: Host) -> VtdConfig:
    """How the booted guest's intel-iommu is set up, on this host."""
    kvm = accelerator_for(host, Irqchip.SPLIT) is not None
    return replace(GUEST, irqchip=Irqchip.SPLIT if kvm else Irqchip.TCG)
