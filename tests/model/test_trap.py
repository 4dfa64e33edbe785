"""Serving paths: predicted from rows, measured from traces and exits."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.model.address import AddressRange
from harness.model.expectation import Space
from harness.model.memory_map import AddressSpace, FlatView, Kind, Region
from harness.model.page_class import page_runs
from harness.model.pci import Bar, BarKind, Bdf, MsixCapability, PciFunction, PciId
from harness.model.trap import TrapClass, measured_class, predicted_class
from harness.model.version import KernelVersion, QemuVersion
from harness.model.vfio.case import VfioCase
from harness.model.vfio.expectation import expect_vfio
from harness.model.vfio.mapping import VfioOptions

NVME = PciFunction(
    Bdf.parse("0000:01:00.0"),
    PciId(0x1B36, 0x10),
    0x010802,
    (Bar(0, BarKind.MEM64, 0x4000),),
    MsixCapability(0x40, 65, 0, 0x2000, 0, 0x3000),
)


def served(address: int, *, kernel: str = "6.12", **options: int | bool | None) -> TrapClass:
    case = VfioCase(
        NVME,
        KernelVersion.parse(kernel),
        QemuVersion(10, 0, 2),
        {0: 0xFE000000},
        kvm=True,
        options=VfioOptions(**options),  # type: ignore[arg-type]
    )
    return predicted_class(expect_vfio(case).rows_of(Space.MEMORY), 0xFE000000 + address)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (0x0, TrapClass.DIRECT),
        (0x1FFC, TrapClass.DIRECT),
        (0x2000, TrapClass.TABLE),
        (0x240C, TrapClass.TABLE),
        (0x2410, TrapClass.RAM_DEVICE),
        (0x2FFC, TrapClass.RAM_DEVICE),
        (0x3000, TrapClass.DIRECT),
        (0x3FFC, TrapClass.DIRECT),
        (0x4000, TrapClass.ABSENT),
    ],
)
def test_only_the_page_of_the_table_is_trapped(address: int, expected: TrapClass) -> None:
    """Rule MAP-05: the rest of the page is served from QEMU's own mapping."""
    assert served(address) is expected


def test_without_the_capability_the_rest_of_the_page_is_slow() -> None:
    assert served(0x2410, kernel="4.15") is TrapClass.SLOW
    assert served(0x3000, kernel="4.15") is TrapClass.DIRECT


def test_x_no_mmap_makes_all_slow_but_the_table() -> None:
    """Rule TRP-08."""
    assert served(0x0, no_mmap=True) is TrapClass.SLOW
    assert served(0x2000, no_mmap=True) is TrapClass.TABLE


def test_beside_a_relocated_table_nobody_answers() -> None:
    assert served(0x4410, msix_relocation=0) is TrapClass.UNTRACED
    assert served(0x2000, msix_relocation=0) is TrapClass.DIRECT


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        (Kind.RAM, "pc.ram", TrapClass.DIRECT),
        (Kind.IO, "vfio[0000:01:00.0].rom", TrapClass.ROM),
        (Kind.IO, "vfio-rtl8168-window-data-quirk", TrapClass.QUIRK),
        (Kind.IO, "msix-pba", TrapClass.PBA),
        (Kind.IO, "VFIO MSIX PBA", TrapClass.SLOW),
        (Kind.IO, "0000:01:00.0 BAR 2", TrapClass.SLOW),
        (Kind.IO, "nvme-bar0", TrapClass.OTHER),
        (Kind.ROM, "pc.bios", TrapClass.OTHER),
    ],
)
def test_names_of_regions_tell_who_serves(kind: Kind, name: str, expected: TrapClass) -> None:
    row = Region(AddressRange(0x1000, 0x1000), kind, name)

    assert predicted_class([row], 0x1800) is expected


def test_a_piece_of_ram_below_a_page_is_not_direct() -> None:
    assert predicted_class([Region(AddressRange(0x1000, 0x800), Kind.RAM, "r")], 0x1000) is (
        TrapClass.OTHER
    )


N = 1000
RAMD, SLOW = "memory_region_ram_device_read", "vfio_region_read"
TABLE = "memory_region_ops_read:msix-table"


@pytest.mark.parametrize(
    ("counts", "exits", "expected"),
    [
        ({}, 0, TrapClass.DIRECT),
        ({}, None, TrapClass.DIRECT),
        ({SLOW: 3}, 7, TrapClass.DIRECT),
        ({RAMD: N}, N, TrapClass.RAM_DEVICE),
        ({RAMD: N + 1}, None, TrapClass.RAM_DEVICE),
        ({"memory_region_ram_device_write": N}, N, TrapClass.RAM_DEVICE),
        ({SLOW: N, "memory_region_ops_read:0000:01:00.0 BAR 0": N}, N + 4, TrapClass.SLOW),
        ({"vfio_region_write": N}, N, TrapClass.SLOW),
        ({TABLE: N}, N, TrapClass.TABLE),
        ({"memory_region_ops_read:msix-pba": N}, N, TrapClass.PBA),
        ({"vfio_rom_read": N}, N, TrapClass.ROM),
        ({"vfio_quirk_generic_mirror_read": N, SLOW: N}, N, TrapClass.QUIRK),
        (
            {
                "memory_region_ops_read:vfio-rtl8168-window-data-quirk": N,
                "vfio_quirk_rtl8168_msix_read": N,
            },
            N,
            TrapClass.QUIRK,
        ),
        ({}, N, TrapClass.UNTRACED),
        # Not all of them, more than were made, two paths at once, exits that do not fit:
        ({SLOW: N // 2}, N // 2, TrapClass.UNCLEAR),
        ({SLOW: N - 1}, N, TrapClass.UNCLEAR),
        ({SLOW: 2 * N}, 2 * N, TrapClass.UNCLEAR),
        ({SLOW: N, RAMD: N}, N, TrapClass.UNCLEAR),
        ({SLOW: N}, 0, TrapClass.UNCLEAR),
        ({}, N // 2, TrapClass.UNCLEAR),
        # Events of other devices do not count.
        ({"memory_region_ops_read:nvme-bar0": N, "pci_cfg_read": N}, 0, TrapClass.DIRECT),
    ],
)
def test_counts_tell_who_served(
    counts: dict[str, int], exits: int | None, expected: TrapClass
) -> None:
    assert measured_class(counts, N, exits) is expected


@given(st.sampled_from([RAMD, SLOW, TABLE]), st.integers(20, 10**6), st.floats(0, 0.05))
def test_noise_within_the_tolerance_changes_nothing(event: str, n: int, share: float) -> None:
    noise = int(n * share)

    assert measured_class({"vfio_rom_read": noise}, n, noise) is TrapClass.DIRECT
    loud = measured_class({event: n + noise, "vfio_rom_read": noise}, n, n + noise)
    assert loud.is_trapped


@pytest.mark.parametrize(("n", "tolerance"), [(0, 0.05), (-1, 0.05), (10, 0.5)])
def test_too_few_accesses_tell_nothing(n: int, tolerance: float) -> None:
    with pytest.raises(ValueError, match="tell nothing"):
        measured_class({}, n, tolerance=tolerance)


@given(st.data())
def test_direct_pages_of_a_view_are_those_whose_accesses_are_direct(
    vfio_cases: st.SearchStrategy[VfioCase], data: st.DataObject
) -> None:
    """The two models of a page agree."""
    case = data.draw(vfio_cases)
    rows = [row.region() for row in expect_vfio(case).rows_of(Space.MEMORY)]
    assume(rows)
    view = FlatView((AddressSpace("memory"),), "system", tuple(rows))
    row = data.draw(st.sampled_from(rows))

    for run in page_runs(view, row.range, case.page):
        inside = run.range.intersection(row.range)
        assert inside is not None
        for address in (inside.start, inside.last):
            served = predicted_class(rows, address, case.page)
            assert (served is TrapClass.DIRECT) is run.page_class.is_direct
