"""Faults and settings of the IOMMU in a kernel log, of old and new kernels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.pci import Bdf
from harness.parse.dmesg import (
    DmarFault,
    DmarUnit,
    DomainType,
    FaultKind,
    VfioNote,
    dmar_faults,
    find_dmar_fault,
    find_fault_status,
    iommu_boot,
    suppressed_faults,
    vfio_messages,
)

DEVICE = Bdf.parse("00:03.0")
WRITE_WORDS = "PTE Write access is not set"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "[   10.000001] DMAR: [DMA Write NO_PASID] Request device [00:03.0] fault addr"
            " 0xfffff000 [fault reason 0x05] PTE Write access is not set",
            DmarFault(
                FaultKind.DMA_WRITE, DEVICE, 0xFFFFF000, None, 5, WRITE_WORDS, None, 10.000001
            ),
        ),
        (
            "DMAR: [DMA Read PASID 0x1f] Request device [0000:00:03.0] fault addr 0x1000"
            " [fault reason 0x71] SM: Present bit in first-level paging entry is clear\r",
            DmarFault(
                FaultKind.DMA_READ,
                DEVICE,
                0x1000,
                None,
                0x71,
                "SM: Present bit in first-level paging entry is clear",
                0x1F,
            ),
        ),
        (
            "DMAR: [DMA Read] Request device [00:03.0] PASID ffffffff fault addr deadb000"
            " [fault reason 12] non-zero reserved fields in PTE",
            DmarFault(
                FaultKind.DMA_READ, DEVICE, 0xDEADB000, None, 12, "non-zero reserved fields in PTE"
            ),
        ),
        (
            "DMAR: [DMA Write] Request device [00:03.0] fault addr 3cfe4000"
            " [fault reason 05] PTE Write access is not set",
            DmarFault(FaultKind.DMA_WRITE, DEVICE, 0x3CFE4000, None, 5, WRITE_WORDS),
        ),
        (
            "DMAR: [INTR-REMAP] Request device [00:03.0] fault index 0xffff"
            " [fault reason 0x22] Present field in the IRTE entry is clear",
            DmarFault(
                FaultKind.INTERRUPT,
                DEVICE,
                None,
                0xFFFF,
                0x22,
                "Present field in the IRTE entry is clear",
            ),
        ),
        (
            "DMAR: [INTR-REMAP] Request device [00:03.0] fault index 18"
            " [fault reason 34] Present field in the IRTE entry is clear",
            DmarFault(
                FaultKind.INTERRUPT,
                DEVICE,
                None,
                0x18,
                0x22,
                "Present field in the IRTE entry is clear",
            ),
        ),
    ],
    ids=["5.14", "5.14-pasid", "5.1", "4.2", "interrupt-5.14", "interrupt-4.2"],
)
def test_fault_is_read_in_every_dialect(line: str, expected: DmarFault) -> None:
    assert find_dmar_fault(line) == expected


def test_two_line_fault_of_old_kernels_is_joined() -> None:
    lines = [
        "DMAR:[DMA Write] Request device [00:03.0] fault addr 3cfe4000 ",
        "DMAR:[fault reason 05] PTE Write access is not set",
        "DMAR:[fault reason 02] belongs to nothing",
    ]

    assert dmar_faults(lines) == (
        DmarFault(FaultKind.DMA_WRITE, DEVICE, 0x3CFE4000, None, 5, WRITE_WORDS),
    )


@given(
    st.sampled_from([FaultKind.DMA_READ, FaultKind.DMA_WRITE]),
    st.integers(0, 0xFFFF),
    st.integers(0, (1 << 52) - 1),
    st.integers(0, 255),
    st.none() | st.integers(0, (1 << 20) - 1),
)
def test_what_new_kernels_print_is_read_back(
    kind: FaultKind, sid: int, page: int, reason: int, pasid: int | None
) -> None:
    source = Bdf(0, sid >> 8, sid >> 3 & 31, sid & 7)
    words = "NO_PASID" if pasid is None else f"PASID {pasid:#x}"
    line = (
        f"DMAR: [{kind.value} {words}] Request device [{source.bus:02x}:{source.slot}] fault addr"
        f" {page << 12:#x} [fault reason {reason:#04x}] Unknown"
    )

    assert find_dmar_fault(line) == DmarFault(
        kind, source, page << 12, None, reason, "Unknown", pasid
    )


def test_fault_status_is_hexadecimal() -> None:
    assert find_fault_status("[  1.000000] DMAR: DRHD: handling fault status reg 102") == 0x102
    assert find_fault_status("DMAR: IOMMU enabled") is None


def test_suppressed_faults_are_counted() -> None:
    lines = ["dmar_fault: 30 callbacks suppressed", "x", "[ 1.000000] dmar_fault: 2 callbacks"]

    assert suppressed_faults([*lines, "[    9.000000] dmar_fault: 12 callbacks suppressed"]) == 42


BOOT = """\
[    0.031312] DMAR: IOMMU enabled
[    0.132131] DMAR: Host address width 48
[    0.132132] DMAR: DRHD base: 0x000000fed90000 flags: 0x0
[    0.132138] DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap d2008c222f0686 ecap f00f5a
[    0.133000] DMAR-IR: IOAPIC id 0 under DRHD base  0xfed90000 IOMMU 0
[    0.134000] DMAR-IR: Enabled IRQ remapping in x2apic mode
[    0.340000] iommu: Default domain type: Translated (set via kernel command line)
[    0.340001] iommu: DMA domain TLB invalidation policy: strict mode (set via kernel command line)
[    0.400000] DMAR: IOMMU batching disallowed due to virtualization
[    0.500000] pci 0000:00:00.0: Adding to iommu group 0
[    0.500001] pci 0000:00:03.0: Adding to iommu group 3
[    0.500002] DMAR: Intel(R) Virtualization Technology for Directed I/O
[    9.500001] vfio-pci 0000:00:03.0: Adding to iommu group 4
""".splitlines()


def test_boot_log_is_gathered() -> None:
    boot = iommu_boot(BOOT)

    assert boot.enabled
    assert boot.unit() == DmarUnit("dmar0", 0xFED90000, (1, 0), 0xD2008C222F0686, 0xF00F5A)
    assert boot.interrupt_mode == "x2apic"
    assert boot.batching_disallowed
    assert boot.strict is True
    assert boot.domain_type is DomainType.TRANSLATED
    assert not boot.no_address_widths
    assert boot.groups[0] == (Bdf.parse("00:00.0"), 0)
    assert boot.group(DEVICE) == 4


def test_other_settings_are_gathered() -> None:
    boot = iommu_boot(
        [
            "DMAR-IR: Enabled IRQ remapping in xapic mode",
            "DMAR: No supported address widths. Not attempting DMA translation.",
            "iommu: Default domain type: Passthrough",
            "iommu: DMA domain TLB invalidation policy: lazy mode",
            "iommu: Adding device 0000:00:1f.2 to group 7",
        ]
    )

    assert (boot.interrupt_mode, boot.no_address_widths, boot.strict) == ("xapic", True, False)
    assert boot.domain_type is DomainType.PASSTHROUGH
    assert boot.group(Bdf.parse("00:1f.2")) == 7
    assert boot.group(DEVICE) is None


def test_silent_log_gives_nothing() -> None:
    boot = iommu_boot(["Linux version 6.1.0", "Command line: intel_iommu=on iommu=pt"])

    assert not boot.enabled
    assert (boot.domain_type, boot.strict, boot.interrupt_mode) == (None, None, None)
    with pytest.raises(KeyError, match="dmar0"):
        boot.unit()


def test_vfio_messages_are_found() -> None:
    lines = [
        "[    1.0] nothing",
        "[    2.000000] vfio-pci 0000:01:00.0: Masking broken INTx support",
        "[    3.000000] vfio-pci 0000:01:00.0: Relaying device request to user (#0)",
        "[    4.000000] vfio-pci 0000:3d:00.0: 8086:37c8 exists in vfio-pci device denylist,"
        " driver probing disallowed.",
        'vfio_iommu_type1_attach_group: No interrupt remapping support.  Use the module param "x"',
    ]

    found = vfio_messages(lines)

    assert [m.note for m in found] == [
        VfioNote.BROKEN_INTX,
        VfioNote.RELAYING_REQUEST,
        VfioNote.DENYLISTED,
        VfioNote.NO_INTERRUPT_REMAPPING,
    ]
    assert found[0].function == Bdf.parse("01:00.0")
    assert found[0].time == 2.0
    assert found[3].function is None
