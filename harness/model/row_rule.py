"""The rules that say why a row of an assigned device's memory map is what it is."""

from __future__ import annotations

import enum


class RowRule(enum.StrEnum):
    """Id of the rule behind an expected row, with the place in QEMU or Linux that makes it so."""

    WHOLE = "MAP-01"
    """A memory BAR is mapped whole (``vfio_region_setup()``, ``vfio_region_mmap()``)."""
    TABLE = "MAP-02"
    """The MSI-X table is emulated on top of all else (``msix_init()``)."""
    TABLE_PAGES = "MAP-03"
    """Without MSIX_MAPPABLE the host pages of the table are not mapped
    (``vfio_pci_fixup_msix_region()``, Linux ``msix_sparse_mmap_cap()`` 4.6 to 4.15)."""
    AROUND_TABLE = "MAP-04"
    """With it all is mapped, and the table cuts its own bytes out
    (QEMU ae0215b2bb, 2.12; Linux a32295c612c5, 4.16)."""
    BESIDE_TABLE_PAGES = "MAP-06"
    """Without it ``mmaps[i]`` begin and end at the table's host pages (same function)."""
    PBA = "MAP-10"
    """``msix-pba`` is in the map while a masked vector is pending (``vfio_msi_interrupt()``)."""
    PORTS = "MAP-11"
    """Port BARs are never mapped (Linux ``vfio_pci_probe_mmaps()``)."""
    SUBPAGE_SLOW = "MAP-15"
    """A BAR below a page is mapped only if it has its host page alone
    (Linux 05f0c03fbac1, 4.8)."""
    SUBPAGE = "MAP-16"
    """A mapped BAR below a page fills its page if the guest aligned it
    (``vfio_sub_page_bar_update_mapping()``, QEMU 95251725e3, 2.8)."""
    SPARSE = "MAP-17"
    """Sparse areas are mapped, the rest is not (``vfio_setup_region_sparse_mmaps()``)."""
    NO_MMAP = "MAP-18"
    """``x-no-mmap=on`` maps nothing (``vfio_region_setup()``)."""
    NOT_MAPPABLE = "MAP-19"
    """The kernel does not offer the region for mapping, or mapping it failed
    (``vfio_bar_register()``: a warning, and the BAR stays slow)."""
    RELOCATED = "MAP-20"
    """``x-msix-relocation`` enlarges or makes a BAR; what it adds beside the table belongs to
    ``base BAR n``, and the table's old place is mapped (``vfio_pci_relocate_msix()``,
    89d5202edc, 2.12)."""
    NO_EMULATION = "MAP-35"
    """The machine has ``vfio-no-msix-emulation`` (pseries): no table (``vfio_msix_setup()``)."""
    USER_PBA = "MAP-38"
    """With vfio-user the PBA is a window of its own above all else, always
    (``vfio_user_msix_setup()``, 10.1)."""
    GROWN = "MAP-39"
    """The container of a BAR below a page that once filled its page stays that large
    (``vfio_sub_page_bar_update_mapping()``)."""
    INTX = "INT-07"
    """A pending INTx without KVM's help disables all mmaps (``vfio_intx_interrupt()``)."""
    ROM = "NM-06"
    """The expansion ROM is ``vfio[NAME].rom`` and slow (``vfio_pci_size_rom()``)."""
    NVIDIA_88000 = "QRK-01"
    """``vfio_probe_nvidia_bar0_quirk()``."""
    NVIDIA_1800 = "QRK-02"
    """The same, with ``x-vga=on``."""
    NVIDIA_BAR5 = "QRK-03"
    """``vfio_probe_nvidia_bar5_quirk()``."""
    ATI = "QRK-05"
    """``vfio_probe_ati_bar2_quirk()``, ``vfio_probe_ati_bar4_quirk()``."""
    RTL8168 = "QRK-06"
    """``vfio_probe_rtl8168_bar2_quirk()``."""
    IGD = "QRK-08"
    """``vfio_probe_igd_bar0_quirk()``."""
