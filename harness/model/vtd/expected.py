"""What QEMU's intel-iommu must show in its registers, from its options and its version.

Follows QEMU ``hw/i386/intel_iommu.c`` (``vtd_cap_init()``, ``vtd_decide_config()``) and
``hw/i386/x86-iommu.c`` (``x86_iommu_realize()``). Where a version does not decide a bit, the
bit is left open (``ignore``), never guessed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from harness.model.version import QemuVersion
from harness.model.vtd.registers import CAP, ECAP, VER, Layout


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a register must read, and which of its bits are left open."""

    layout: Layout
    value: int
    ignore: int = 0

    def matches(self, seen: int) -> bool:
        """Say whether *seen* is as predicted."""
        return not (seen ^ self.value) & ~self.ignore

    def explain(self, seen: int) -> str:
        """Say in words how *seen* differs, or that it does not."""
        width = self.layout.width // 4
        head = f"{self.layout.name} reads {seen:#0{width + 2}x}"
        found = self.layout.differences(seen, self.value, self.ignore)
        if not found:
            return f"{head}, as expected"
        expected = f"{self.value:#0{width + 2}x}"
        return "\n  ".join((f"{head}, expected {expected} (VT-d {self.layout.section})", *found))


class Irqchip(enum.Enum):
    """Where the guest's interrupt controllers are."""

    TCG = "tcg"
    """No KVM: all in QEMU."""
    OFF = "off"
    SPLIT = "split"
    ON = "on"

    @property
    def in_kernel(self) -> bool:
        """QEMU ``kvm_irqchip_in_kernel()``: the local APICs are in KVM."""
        return self in (Irqchip.SPLIT, Irqchip.ON)


def remaps_interrupts(intremap: bool | None, irqchip: Irqchip) -> bool:
    """Say whether interrupt remapping is on; None is QEMU's ``auto`` (VTD-03).

    :raise ValueError: QEMU refuses this pair (VTD-02).
    """
    if intremap and irqchip is Irqchip.ON:
        raise ValueError("intremap=on does not work with kernel-irqchip=on")
    return irqchip is not Irqchip.ON if intremap is None else intremap


def extended_interrupts(eim: bool | None, intremap: bool, irqchip: Irqchip) -> bool:
    """Say whether EIM is on; None is QEMU's ``auto`` (VTD-07). *intremap* is what is in force.

    :raise ValueError: QEMU refuses ``eim=on`` without interrupt remapping (VTD-05).
    """
    if eim and not intremap:
        raise ValueError("eim=on needs intremap=on")
    return intremap and irqchip.in_kernel if eim is None else eim


def default_aw_bits(machine: QemuVersion) -> int:
    """Return the default ``aw-bits`` of the machine type of *machine* (VTD-10)."""
    return 48 if machine.has(9, 2) else 39


def _is(version: QemuVersion | None, major: int, minor: int) -> bool:
    return version is not None and (version.major, version.minor) >= (major, minor)


def _maybe(version: QemuVersion | None, major: int, minor: int) -> bool:
    """Say whether it cannot be told: no version, or the tree that leads to that release."""
    if version is None:
        return True
    return version.has(major, minor) and not _is(version, major, minor)


def expected_version() -> Prediction:
    """Return what VER must read (VTD-29)."""
    return Prediction(VER, 0x10)


def expected_cap(
    version: QemuVersion | None,
    *,
    aw_bits: int,
    caching_mode: bool = False,
    dma_drain: bool = True,
    dma_translation: bool = True,
    first_stage: bool = False,
    fs1gp: bool = True,
) -> Prediction:
    """Return what CAP must read (VTD-30 to VTD-32).

    :param version: of QEMU; None leaves open what differs between versions.
    :param aw_bits: 39 or 48, see `default_aw_bits`.
    :param first_stage: ``fsts=on``; *fs1gp* counts only with it.
    :raise ValueError: QEMU refuses this address width.
    """
    if aw_bits not in (39, 48):
        raise ValueError(f"aw-bits is 39 or 48, not {aw_bits}")
    value = 0x0012008C22000006 | (aw_bits - 1) << CAP.field("MGAW").low
    if dma_drain:
        value |= CAP.mask("DWD", "DRD")
    if dma_translation:
        value |= (0b010 if aw_bits == 39 else 0b110) << CAP.field("SAGAW").low
    if caching_mode:
        value |= CAP.mask("CM")
    if first_stage and fs1gp:
        value |= CAP.mask("FS1GP")
    ignore = 0
    # New in 10.2. A stable 10.1 may have taken it; 10.0.13 has not.
    if _maybe(version, 10, 2) or (_is(version, 10, 1) and not _is(version, 10, 2)):
        ignore |= CAP.mask("ESRTPS")
    elif _is(version, 10, 2):
        value |= CAP.mask("ESRTPS")
    if not _is(version, 4, 0):
        # No dma-drain property before 4.0.
        ignore |= CAP.mask("DWD", "DRD")
    if _maybe(version, 11, 0) or (_is(version, 11, 0) and not _is(version, 11, 1)):
        # Clear in 11.1.3 (observed), which refuses aw-bits=57; nobody has looked at 11.0.
        ignore |= CAP.mask("FS5LP")
    return Prediction(CAP, value, ignore)


def expected_ecap(
    *,
    interrupt_remapping: bool,
    eim: bool,
    device_iotlb: bool = False,
    snoop_control: bool = False,
    pass_through: bool = True,
    scalable: bool = False,
    first_stage: bool = False,
    pasid_bits: int = 0,
    tells_pasid_bits: bool = False,
) -> Prediction:
    """Return what ECAP must read (VTD-33, VTD-34).

    :param interrupt_remapping: as in force, see `remaps_interrupts`.
    :param eim: as in force, see `extended_interrupts`.
    :param first_stage: ``fsts=on``; replaces the second stage.
    :param pasid_bits: size of PASIDs; 0: there are none.
    :param tells_pasid_bits: the build has ``pasid-bits`` and shows the size, less one, in PSS
        (observed on 11.1.3); one that has ``x-pasid-mode`` leaves PSS 0.
    :raise ValueError: QEMU refuses this combination.
    """
    if eim and not interrupt_remapping:
        raise ValueError("eim=on needs intremap=on")
    if (first_stage or pasid_bits) and not scalable:
        raise ValueError("fsts and pasid-bits need scalable-mode=on")
    value = 0xF02
    fields = {
        ("IR", "MHMV"): interrupt_remapping,
        ("EIM",): eim,
        ("DT",): device_iotlb,
        ("PT",): pass_through,
        ("SC",): snoop_control,
        ("PASID",): bool(pasid_bits),
        ("SMTS",): scalable,
        ("FSTS",): first_stage,
        ("SRS", "SSTS"): scalable and not first_stage,
    }
    for names, on in fields.items():
        value |= ECAP.mask(*names) if on else 0
    if pasid_bits and tells_pasid_bits:
        value |= (pasid_bits - 1) << ECAP.field("PSS").low
    return Prediction(ECAP, value)
