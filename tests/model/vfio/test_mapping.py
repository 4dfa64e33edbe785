"""What the kernel offers for mapping, and where a relocated MSI-X table goes."""

import pytest

from harness.model.address import AddressRange
from harness.model.pci import Bar, BarKind, Bdf, MsixCapability, PciFunction, PciId
from harness.model.version import KernelVersion, QemuVersion
from harness.model.vfio.mapping import (
    GuestBar,
    RegionFacts,
    VfioOptions,
    VfioRefused,
    alone_on_their_page,
    beside_table_pages,
    guest_layout,
    mapped_areas,
    region_facts_of_linux,
    relocate_msix,
)

MSIX = MsixCapability(0x40, 65, 0, 0x2000, 0, 0x3000)
FUNCTION = PciFunction(
    Bdf.parse("0000:01:00.0"),
    PciId(0x1B36, 0x10),
    0x010802,
    (
        Bar(0, BarKind.MEM64, 0x4000),
        Bar(2, BarKind.IO, 0x20),
        Bar(3, BarKind.MEM32, 0x100),
        Bar(4, BarKind.MEM32, 0x1000),
    ),
    MSIX,
)
SLOW, MAPPED = RegionFacts(mappable=False), RegionFacts(mappable=True)


@pytest.mark.parametrize(
    ("kernel", "table_bar"),
    [
        ("3.10", MAPPED),
        ("4.5", MAPPED),
        (
            "4.6",
            RegionFacts(True, sparse=(AddressRange(0, 0x2000), AddressRange(0x3000, 0x1000))),
        ),
        (
            "4.15.18",
            RegionFacts(True, sparse=(AddressRange(0, 0x2000), AddressRange(0x3000, 0x1000))),
        ),
        ("4.16", RegionFacts(True, msix_mappable=True)),
        ("6.12", RegionFacts(True, msix_mappable=True)),
    ],
)
def test_each_kernel_says_its_own_of_the_table(kernel: str, table_bar: RegionFacts) -> None:
    facts = region_facts_of_linux(FUNCTION, KernelVersion.parse(kernel))

    assert facts == {0: table_bar, 2: SLOW, 3: SLOW, 4: MAPPED}


@pytest.mark.parametrize(
    ("kernel", "reserved", "page", "expected"),
    [
        ("6.12", {3}, 4096, MAPPED),
        ("4.8", {3}, 4096, MAPPED),
        ("4.7", {3}, 4096, SLOW),
        ("6.12", set(), 4096, SLOW),
        ("6.12", {2, 3}, 0x10000, MAPPED),
    ],
)
def test_a_bar_below_a_page_needs_the_page_for_itself(
    kernel: str, reserved: set[int], page: int, expected: RegionFacts
) -> None:
    facts = region_facts_of_linux(FUNCTION, KernelVersion.parse(kernel), page, reserved)

    assert facts[3] == expected
    assert facts[2] == SLOW


def test_a_page_of_the_host_decides_what_is_below_a_page() -> None:
    facts = region_facts_of_linux(FUNCTION, KernelVersion(6, 12), 0x10000)

    assert set(facts.values()) == {SLOW}


@pytest.mark.parametrize(
    ("size", "table", "page", "expected"),
    [
        (0x4000, (0, 0x10), 0x1000, [(0x1000, 0x3000)]),
        (0x4000, (0x3FF0, 0x10), 0x1000, [(0, 0x3000)]),
        (0x4000, (0x1FF0, 0x20), 0x1000, [(0, 0x1000), (0x3000, 0x1000)]),
        (0x4000, (0x1000, 0x1000), 0x1000, [(0, 0x1000), (0x2000, 0x2000)]),
        (0x4000, (0x1000, 0x10), 0x4000, []),
        (0x100, (0, 0x10), 0x1000, []),
    ],
)
def test_pages_of_the_table_are_left_out(
    size: int, table: tuple[int, int], page: int, expected: list[tuple[int, int]]
) -> None:
    areas = beside_table_pages(size, AddressRange(*table), page)

    assert [(area.start, area.size) for area in areas] == expected


def test_several_sparse_areas_are_taken_as_they_are() -> None:
    """Rule MAP-07: no fixup, even where an area holds the table."""
    areas = (AddressRange(0, 0x1000), AddressRange(0x2000, 0x1000))
    facts = RegionFacts(True, sparse=areas)

    for qemu in ("2.11", "10.0"):
        found = mapped_areas(0x4000, facts, MSIX.table, page=4096, qemu=QemuVersion.parse(qemu))
        assert found == areas


def bars(*given: GuestBar) -> dict[int, GuestBar]:
    return {bar.index: bar for bar in given}


REGISTERS = GuestBar(0, BarKind.MEM64, 0x4000, 0x4000)


def test_a_relocated_table_doubles_the_bar() -> None:
    bar, moved = relocate_msix(bars(REGISTERS), MSIX, 0, 4096)

    assert bar == GuestBar(0, BarKind.MEM64, 0x8000, 0x4000)
    assert (moved.table_bar, moved.table_offset, moved.pba_bar, moved.pba_offset) == (
        0,
        0x4000,
        0,
        0x4410,
    )


def test_a_small_bar_grows_to_twice_the_table() -> None:
    small = GuestBar(2, BarKind.MEM32, 0x100, 0x100)

    bar, moved = relocate_msix(bars(REGISTERS, small), MSIX, 2, 4096)

    assert (bar.size, moved.table_offset) == (0x2000, 0x1000)


@pytest.mark.parametrize(
    ("present", "target", "kind"),
    [((), 2, BarKind.MEM64), ((3,), 2, BarKind.MEM32), ((), 5, BarKind.MEM32)],
)
def test_a_new_bar_is_64_bit_where_it_can_be(
    present: tuple[int, ...], target: int, kind: BarKind
) -> None:
    others = [GuestBar(index, BarKind.MEM32, 0x1000, 0x1000) for index in present]

    bar, moved = relocate_msix(bars(REGISTERS, *others), MSIX, target, 4096)

    assert bar == GuestBar(target, kind, 0x1000, 0)
    assert moved.table_offset == 0


def test_the_unit_of_a_relocated_table_is_the_host_page() -> None:
    bar, _ = relocate_msix(bars(REGISTERS), MSIX, 2, 0x10000)

    assert bar.size == 0x10000


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (2, "Invalid MSI-X relocation BAR 2, I/O port BAR"),
        (1, "Invalid MSI-X relocation BAR 1, consumed by 64-bit BAR 0"),
        (3, "Invalid MSI-X relocation BAR 3, no space to extend 32-bit BAR"),
    ],
)
def test_targets_that_cannot_take_it_are_refused_in_qemus_words(target: int, message: str) -> None:
    """Rule MAP-22."""
    given = bars(
        REGISTERS,
        GuestBar(2, BarKind.IO, 0x20, 0x20),
        GuestBar(3, BarKind.MEM32, 1 << 31, 1 << 31),
    )

    with pytest.raises(VfioRefused) as raised:
        relocate_msix(given, MSIX, target, 4096)

    assert str(raised.value) == message


def test_one_gigabyte_can_still_be_doubled() -> None:
    big = GuestBar(3, BarKind.MEM32, 1 << 30, 1 << 30)

    assert relocate_msix(bars(big), MSIX, 3, 4096)[0].size == 1 << 31


def test_a_target_that_is_no_bar_is_refused() -> None:
    with pytest.raises(ValueError, match="none of 0 to 5"):
        relocate_msix(bars(REGISTERS), MSIX, 6, 4096)


def test_relocation_does_nothing_without_msix() -> None:
    plain = PciFunction(
        FUNCTION.bdf, FUNCTION.id, FUNCTION.class_code, (Bar(0, BarKind.MEM32, 0x1000),)
    )

    layout = guest_layout(
        plain, VfioOptions(msix_relocation=0), page=4096, qemu=QemuVersion(10, 0)
    )

    assert layout.bars == (GuestBar(0, BarKind.MEM32, 0x1000, 0x1000),)


def _with_bars(bdf: str, *bars: Bar) -> PciFunction:
    return PciFunction(Bdf.parse(bdf), PciId(0x10EC, 0x8139), 0x020000, bars)


SMALL = Bar(1, BarKind.MEM32, 0x100, address=0xFEA5_D000)


@pytest.mark.parametrize(
    ("bars", "expected"),
    [
        ((SMALL,), {1}),
        ((Bar(1, BarKind.MEM32, 0x100, address=0xFEA5_D100),), set()),
        ((Bar(1, BarKind.MEM32, 0x100),), set()),
        ((Bar(1, BarKind.MEM32, 0x1000, address=0xFEA5_D000),), set()),
        ((Bar(1, BarKind.IO, 0x100, address=0xC000),), set()),
        ((SMALL, Bar(2, BarKind.MEM32, 0x100, address=0xFEA5_DF00)), set()),
        ((SMALL, Bar(2, BarKind.MEM32, 0x100, address=0xFEA5_E000)), {1, 2}),
    ],
    ids=["first", "in the middle", "nowhere", "a page", "ports", "shared", "two pages"],
)
def test_a_small_bar_may_have_its_page_alone(bars: tuple[Bar, ...], expected: set[int]) -> None:
    assert alone_on_their_page(_with_bars("0000:00:16.0", *bars)) == expected


def test_another_function_may_be_on_the_page() -> None:
    other = _with_bars("0000:00:17.0", Bar(0, BarKind.MEM32, 0x10, address=0xFEA5_D800))

    assert alone_on_their_page(_with_bars("0000:00:16.0", SMALL), [other]) == set()
