"""What a computer has that matters for runs; gathered by `harness.lab.doctor`, judged in
`harness.report.advice`. Field names are the keys of ``trapline doctor --json``."""

from __future__ import annotations

from dataclasses import dataclass

from harness.model.rule import RuleState


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """The processors."""

    architecture: str
    """``x86_64``"""
    vendor: str
    count: int
    virtualisation: str
    """The flag: ``svm`` (AMD), ``vmx`` (Intel) or empty."""
    is_virtual: bool
    """This computer is a virtual machine itself."""
    nested: str
    """``nested`` parameter of the KVM module: ``Y``, ``N`` or empty if it is not loaded."""


@dataclass(frozen=True, slots=True)
class AcceleratorFacts:
    """What can run guests."""

    device: str
    """``/dev/kvm``: ``absent``, ``forbidden`` or ``there``."""
    chosen: str
    """``kvm`` or ``tcg``; empty if nothing could be tried (no static helper yet)."""
    reason: str
    is_remembered: bool
    """Decided by an earlier run since this computer was started, a trial boot included."""


@dataclass(frozen=True, slots=True)
class IommuFacts:
    """The IOMMU as firmware and kernel show it."""

    tables: tuple[str, ...]
    """ACPI tables that announce one: ``DMAR`` (VT-d), ``IVRS`` (AMD-Vi), ``VIOT`` (virtio)."""
    units: tuple[str, ...]
    """Names in ``/sys/class/iommu``: ``dmar0``, ``ivhd0``."""
    groups: int
    options: tuple[str, ...]
    """Words of the kernel command line about it."""


@dataclass(frozen=True, slots=True)
class VfioFacts:
    """VFIO in the running kernel."""

    modules: dict[str, str]
    """``vfio``, ``vfio_pci``, ``vfio_iommu_type1``, ``iommufd``: ``loaded`` (or built in and
    active), ``available`` (modprobe loads it) or ``absent``."""
    container: bool
    """``/dev/vfio/vfio`` is there."""
    iommufd: bool
    """``/dev/iommu`` is there."""
    cdevs: bool
    """``/dev/vfio/devices`` is there: functions have character devices of their own."""


@dataclass(frozen=True, slots=True)
class FunctionFacts:
    """One PCI function."""

    bdf: str
    id: str
    class_code: str
    """Six hex digits."""
    driver: str
    group: int | None
    test_device: str
    """Name of the test device that it is for the suites, empty if none."""
    obstacle: str
    """Why it cannot be assigned, empty if it can."""


@dataclass(frozen=True, slots=True)
class QemuFacts:
    """One QEMU build that is there."""

    spec: str
    """What ``--qemu`` takes: ``system``, ``debian:trixie``."""
    version: str
    test_devices: tuple[str, ...]
    """Test devices it can emulate."""


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """One kernel image in the cache."""

    spec: str
    """What ``--kernel`` takes."""
    release: str
    iommufd: bool | None
    """``CONFIG_IOMMUFD``; None if its configuration is not known."""


@dataclass(frozen=True, slots=True)
class CacheFacts:
    """The cache."""

    images: int
    size: int
    """Bytes of all images."""
    free: int
    """Bytes free on its file system."""
    is_complete: bool
    """All that the default run needs is there."""
    states: int = 0
    states_size: int = 0
    """Bytes on the disk of all saved states."""
    environments: int = 0
    environments_size: int = 0
    """Bytes on the disk of all Python environments of the launcher."""


@dataclass(frozen=True, slots=True)
class MirrorFacts:
    """The Debian archive; its address is nobody's business."""

    is_known: bool
    suites: tuple[str, ...]
    """Those that this computer's own lists name, and those fetched before."""


@dataclass(frozen=True, slots=True)
class RuleFacts:
    """One rule, and what a test of it needs from a host."""

    id: str
    section: str
    state: RuleState
    """Of the rule without regard to any run: ``not-run`` (it has suite tests), ``pure``,
    ``hardware``, ``documentation`` or ``uncovered``."""
    needs: tuple[str, ...] = ()
    """Of its least demanding suite test: ``lab`` (the lab's side of a virtual host),
    ``devices`` (test devices behind an IOMMU); empty for none."""
    only: tuple[str, ...] = ()
    """Test devices without which all of its tests are skipped."""


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """All of it."""

    kernel: str
    """Release of the running kernel."""
    is_root: bool
    cpu: CpuFacts
    accelerator: AcceleratorFacts
    iommu: IommuFacts
    vfio: VfioFacts
    functions: tuple[FunctionFacts, ...]
    qemus: tuple[QemuFacts, ...]
    kernels: tuple[KernelFacts, ...]
    cache: CacheFacts
    memory_total: int
    """Bytes."""
    memory_available: int
    missing_packages: tuple[str, ...]
    """Debian packages whose programs are needed to make images."""
    mirror: MirrorFacts
    l0_qemu: str
    """The spec of the QEMU that runs virtual hosts."""
    rules: tuple[RuleFacts, ...] = ()
    rules_unknown: str = ""
    """Why `rules` is empty: the suites or tests cannot be read."""
