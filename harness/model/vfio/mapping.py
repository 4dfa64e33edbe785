"""What QEMU's vfio-pci maps of a function: regions, mmap areas, the MSI-X table's place.

Follows ``hw/vfio/pci.c`` and ``region.c`` (``helpers.c`` before 10.1) of QEMU, and
``drivers/vfio/pci/vfio_pci_core.c`` of Linux for what the kernel offers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from harness.model.address import AddressRange
from harness.model.pci import Bar, BarKind, MsixCapability, PciFunction, PciId
from harness.model.version import KernelVersion, QemuVersion

_GIB: Final = 1 << 30
_LAST_BAR: Final = 5
_KUNLUN_VF: Final = PciId(0x1D22, 0x3685)


class VfioRefused(ValueError):
    """QEMU refuses the device at start; the text is the part of its message that is fixed."""


@dataclass(frozen=True, slots=True)
class VfioOptions:
    """Properties of ``-device vfio-pci`` (and of the machine) that change the map."""

    no_mmap: bool = False
    """``x-no-mmap=on``."""
    msix_relocation: int | None = None
    """``x-msix-relocation=barN``."""
    vga: bool = False
    """``x-vga=on``."""
    no_geforce_quirks: bool = False
    """``x-no-geforce-quirks=on``."""
    igd_gms: bool = False
    """``x-igd-gms`` is given."""
    no_msix_emulation: bool = False
    """The machine has the property ``vfio-no-msix-emulation`` (pseries)."""


@dataclass(frozen=True, slots=True)
class VfioState:
    """What changes the map while the machine runs."""

    mmaps_off: bool = False
    """An INTx is pending and nothing but a trap can tell its end."""
    pba_shown: bool = False
    """A masked MSI-X vector is pending."""
    nvidia_window: bool = False
    """The guest has opened the configuration window in BAR 5 of an NVIDIA card."""


@dataclass(frozen=True, slots=True)
class RegionFacts:
    """What the kernel says of one region (``VFIO_DEVICE_GET_REGION_INFO``)."""

    mappable: bool
    """Flag MMAP is set, and mmap() works."""
    msix_mappable: bool = False
    """Capability 3: the MSI-X table may be mapped with the rest."""
    sparse: tuple[AddressRange, ...] | None = None
    """Areas of capability 1, those of size 0 left out; None without it."""


def region_facts_of_linux(
    function: PciFunction,
    kernel: KernelVersion,
    page: int = 4096,
    subpage_reserved: Collection[int] = (),
) -> dict[int, RegionFacts]:
    """Predict what vfio-pci in *kernel* says of each BAR of *function*.

    :param page: page size of that kernel.
    :param subpage_reserved: BARs below a page that start on a page and whose page nobody else
        uses (``vfio sub-page reserved`` in ``/proc/iomem``); that is where the firmware put
        them, and cannot be known from here.
    """
    return {
        bar.index: _facts(bar, function.msix, kernel, page, subpage_reserved)
        for bar in function.bars
    }


def _facts(
    bar: Bar,
    msix: MsixCapability | None,
    kernel: KernelVersion,
    page: int,
    subpage_reserved: Collection[int],
) -> RegionFacts:
    # vfio_pci_probe_mmaps(); before 05f0c03fbac1 (4.8) no BAR below a page was mapped.
    if not bar.is_memory:
        return RegionFacts(mappable=False)
    if bar.size < page and not (kernel.has(4, 8) and bar.index in subpage_reserved):
        return RegionFacts(mappable=False)
    if msix is None or msix.table_bar != bar.index:
        return RegionFacts(mappable=True)
    if kernel.has(4, 16):  # a32295c612c5
        return RegionFacts(mappable=True, msix_mappable=True)
    if kernel.has(4, 6):  # 188ad9d6cbbc, gone with the commit above
        return RegionFacts(mappable=True, sparse=beside_table_pages(bar.size, msix.table, page))
    return RegionFacts(mappable=True)


def alone_on_their_page(
    function: PciFunction, others: Iterable[PciFunction] = (), page: int = 4096
) -> frozenset[int]:
    """Return the BARs below a page that Linux can give the rest of the page to.

    They start on a page and nothing else decodes there (``vfio_pci_probe_mmaps()``).

    :param function: as the host sees it, its BARs where they decode there.
    :param others: the other functions of the host.
    """
    placed = [
        (one.bdf, bar.index, bar.range)
        for one in (function, *others)
        for bar in (*one.bars, *one.vf_bars)
        if bar.is_memory and bar.address is not None
    ]

    def alone(bar: Bar) -> bool:
        here = AddressRange(bar.range.start, page)
        mine = (function.bdf, bar.index)
        return not any(here.overlaps(there) for *who, there in placed if tuple(who) != mine)

    return frozenset(
        bar.index
        for bar in function.bars
        if bar.is_memory and bar.size < page and bar.address is not None
        if bar.address % page == 0 and alone(bar)
    )


def beside_table_pages(size: int, table: AddressRange, page: int) -> tuple[AddressRange, ...]:
    """Return what is left of a BAR of *size* without the host pages that hold *table*."""
    start = table.start - table.start % page
    end = -(-table.end // page) * page
    parts = ((0, min(start, size)), (end, size))
    return tuple(AddressRange.of(a, b) for a, b in parts if a < b)


def mapped_areas(
    size: int,
    facts: RegionFacts,
    table: AddressRange | None,
    *,
    page: int,
    qemu: QemuVersion,
    no_mmap: bool = False,
) -> tuple[AddressRange, ...]:
    """Return the areas of a region that QEMU maps, in the order of ``mmaps[i]``.

    :param size: of the region, bytes.
    :param table: bytes of the MSI-X table if the device itself has it in this BAR.
    """
    if no_mmap or not facts.mappable:
        return ()
    whole = (AddressRange(0, size),)
    areas = whole if facts.sparse is None else facts.sparse
    if qemu.has(11, 0):  # seen in 11.1, not in 10.0: QEMU sorts them
        areas = tuple(sorted(areas))
    if any(area.start % page for area in areas):
        return ()  # mmap() refuses one, and vfio_region_mmap() takes the others back
    # ae0215b2bb (2.12) made QEMU look at the capability.
    may_map_table = facts.msix_mappable and qemu.has(2, 12)
    if table is None or may_map_table or areas != whole:
        return areas
    return beside_table_pages(size, table, page)


def check_areas(regions: Mapping[int, RegionFacts], qemu: QemuVersion) -> None:
    """Follow ``vfio_setup_region_sparse_mmaps()``, which looks at the areas since 11.0.

    :raise VfioRefused: two areas of a region overlap (before 11.0 the later was on top).
    """
    for index in sorted(regions):
        facts = regions[index]
        if not qemu.has(11, 0) or not facts.mappable:
            continue
        for one, two in pairwise(sorted(facts.sparse or ())):
            if one.overlaps(two):
                # Which of the two it names first depends on how the C library sorts.
                raise VfioRefused(f"overlapping sparse mmap regions detected in region {index}: ")


@dataclass(frozen=True, slots=True)
class GuestBar:
    """A BAR as the guest sees it."""

    index: int
    kind: BarKind
    size: int
    region_size: int
    """Bytes that are the device's; 0 for a BAR made for the MSI-X table."""


@dataclass(frozen=True, slots=True)
class GuestLayout:
    """BARs and MSI-X capability as the guest sees them."""

    bars: tuple[GuestBar, ...]
    msix: MsixCapability | None


def guest_layout(
    function: PciFunction, options: VfioOptions, *, page: int, qemu: QemuVersion
) -> GuestLayout:
    """Return what the guest sees of *function*: its own layout unless MSI-X is relocated.

    :raise VfioRefused: QEMU refuses the device, with QEMU's words.
    :raise ValueError: *qemu* has no ``x-msix-relocation``.
    """
    bars = {bar.index: GuestBar(bar.index, bar.kind, bar.size, bar.size) for bar in function.bars}
    target = options.msix_relocation
    if target is not None and not qemu.has(2, 12):
        raise ValueError(f"x-msix-relocation needs QEMU 2.12 (89d5202edc), this is {qemu}")
    msix = _checked_pba(function, qemu, relocated=target is not None)
    if msix is not None and target is not None:
        bars[target], msix = relocate_msix(bars, msix, target, page)
    if msix is not None:
        _check_fits(bars, msix)
    return GuestLayout(tuple(bars[index] for index in sorted(bars)), msix)


def _checked_pba(
    function: PciFunction, qemu: QemuVersion, *, relocated: bool
) -> MsixCapability | None:
    """Follow ``vfio_msix_early_setup()``: refuse or correct a PBA outside its BAR."""
    msix = function.msix
    if msix is None:
        return None
    if max(msix.table_bar, msix.pba_bar) > _LAST_BAR and qemu.has(11, 0):  # not in 10.0
        raise VfioRefused(f"invalid MSI-X BIR, table_bar={msix.table_bar} pba_bar={msix.pba_bar}")
    size = next((bar.size for bar in function.bars if bar.index == msix.pba_bar), 0)
    if msix.pba_offset < size:
        return msix
    if function.id.vendor == 0x1425 and function.id.device & 0xFF00 == 0x5800:
        return replace(msix, pba_offset=0x1000)  # Chelsio T5 virtual functions
    if function.id == _KUNLUN_VF:
        return replace(msix, pba_offset=0xB400)
    if relocated:
        return msix
    raise VfioRefused("hardware reports invalid configuration, MSIX PBA outside of specified BAR")


def relocate_msix(
    bars: Mapping[int, GuestBar], msix: MsixCapability, target: int, page: int
) -> tuple[GuestBar, MsixCapability]:
    """Follow ``vfio_pci_relocate_msix()`` for ``x-msix-relocation=bar<target>``.

    :returns: the enlarged or new BAR, and the MSI-X capability that the guest will read.
    :raise VfioRefused: the target cannot take it (rule MAP-22).
    """
    if not 0 <= target <= 5:
        raise ValueError(f"BAR {target} is none of 0 to 5")
    refused = f"Invalid MSI-X relocation BAR {target}, "
    bar, below = bars.get(target), bars.get(target - 1)
    if bar is not None and bar.kind is BarKind.IO:
        raise VfioRefused(refused + "I/O port BAR")
    if bar is None and below is not None and below.kind is BarKind.MEM64:
        raise VfioRefused(refused + f"consumed by 64-bit BAR {target - 1}")
    if bar is not None and bar.size > _GIB and bar.kind is not BarKind.MEM64:
        raise VfioRefused(refused + "no space to extend 32-bit BAR")

    wanted = -(-(msix.table.size + msix.pba.size) // page) * page
    wanted = 1 << (wanted - 1).bit_length()
    if bar is None:
        roomy = target < 5 and target + 1 not in bars
        bar = GuestBar(target, BarKind.MEM64 if roomy else BarKind.MEM32, wanted, 0)
        offset = 0
    else:
        bar = replace(bar, size=2 * max(bar.size, wanted))
        offset = bar.size // 2
    moved = replace(
        msix,
        table_bar=target,
        table_offset=offset,
        pba_bar=target,
        pba_offset=offset + msix.table.size,
    )
    return bar, moved


def _check_fits(bars: Mapping[int, GuestBar], msix: MsixCapability) -> None:
    """Follow the sanity test of ``msix_init()``; it does not mind ports."""
    sizes = {bar.index: bar.size for bar in bars.values()}
    if (
        msix.table.end > sizes.get(msix.table_bar, 0)
        or msix.pba.end > sizes.get(msix.pba_bar, 0)
        or (msix.table_bar == msix.pba_bar and msix.table.overlaps(msix.pba))
    ):
        raise VfioRefused("table & pba overlap, or they don't fit in BARs, or don't align")
