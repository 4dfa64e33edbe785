"""Faults of every IOMMU whose drivers' words are known."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.model.pci import Bdf
from harness.parse.dmesg import FaultKind
from harness.parse.iommu_fault import IommuFault, iommu_faults, lines_of_faults

DMAR = (
    "[   12.5] not ours",
    "[   13.000001] DMAR: DRHD: handling fault status reg 2",
    "[   13.000002] DMAR: [DMA Write NO_PASID] Request device [00:0c.0] fault addr 0x12346000"
    " [fault reason 0x05] PTE Write access is not set",
)
VIRTIO = "[    9.000001] virtio_iommu virtio0: page fault from EP 104 at 0x12345ffc [W]"
AMD = (
    "[    9.000001] AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:00:0d.0 domain=0x0003"
    " address=0x12345000 flags=0x0020]"
)
AMD_WITH_DRIVER = (
    "[    9.000001] vfio-pci 0000:00:0d.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0003"
    " address=0x12345000 flags=0x0000]"
)


def test_a_fault_of_vtd_has_its_reason_in_hex() -> None:
    assert iommu_faults(DMAR) == (
        IommuFault(FaultKind.DMA_WRITE, Bdf(0, 0, 0xC, 0), 0x1234_6000, "0x5"),
    )


def test_an_interrupt_of_vtd_has_an_index_and_no_address() -> None:
    line = (
        "DMAR: [INTR-REMAP] Request device [ff:1f.7] fault index 0x7000 [fault reason 0x22] gone"
    )

    assert iommu_faults([line]) == (
        IommuFault(FaultKind.INTERRUPT, Bdf(0, 0xFF, 0x1F, 7), None, "0x22", 0x7000),
    )


def test_a_fault_of_virtio_iommu_names_the_endpoint() -> None:
    assert iommu_faults([VIRTIO]) == (
        IommuFault(FaultKind.DMA_WRITE, Bdf(0, 0, 0xD, 0), 0x1234_5FFC, "page"),
    )


def test_a_fault_of_virtio_iommu_may_have_no_address() -> None:
    line = "virtio_iommu virtio0: domain fault from EP 256 [R]"

    assert iommu_faults([line]) == (
        IommuFault(FaultKind.DMA_READ, Bdf(0, 1, 0, 0), None, "domain"),
    )


def test_a_fault_of_virtio_iommu_may_not_say_what_it_was() -> None:
    line = "virtio_iommu virtio0: page fault from EP 104 at 0x12345ffc []"

    assert iommu_faults([line]) == (IommuFault(None, Bdf(0, 0, 0xD, 0), 0x1234_5FFC, "page"),)


def test_a_fault_of_amd_vi_is_found_with_and_without_a_driver() -> None:
    assert [(f.kind, f.source, f.address) for f in iommu_faults([AMD, AMD_WITH_DRIVER])] == [
        (FaultKind.DMA_WRITE, Bdf(0, 0, 0xD, 0), 0x1234_5000),
        (FaultKind.DMA_READ, Bdf(0, 0, 0xD, 0), 0x1234_5000),
    ]


def test_the_lines_that_a_rate_limit_counts_have_their_times() -> None:
    assert [line.time for line in lines_of_faults([*DMAR, VIRTIO])] == [
        13.000001,
        13.000002,
        9.000001,
    ]


@given(st.text())
def test_any_text_can_be_searched(text: str) -> None:
    iommu_faults(text.splitlines())
