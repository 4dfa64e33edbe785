"""Expected maps of known devices, written out by hand and compared byte for byte."""

from textwrap import dedent, indent
from typing import Any

import pytest

from harness.model.address import AddressRange
from harness.model.expectation import Space
from harness.model.pci import Bar, BarKind, Bdf, MsixCapability, PciFunction, PciId
from harness.model.version import KernelVersion, QemuVersion
from harness.model.vfio.case import VfioCase
from harness.model.vfio.expectation import expect_vfio
from harness.model.vfio.mapping import RegionFacts, VfioOptions, VfioRefused, VfioState
from harness.testing import must_fail

KERNEL = KernelVersion.parse("6.12.48+deb13-amd64")
QEMU = QemuVersion.parse("10.0.2 (Debian 1:10.0.2+ds-2+deb13u1)")


def mem(index: int, size: int, kind: BarKind = BarKind.MEM32) -> Bar:
    return Bar(index, kind, size)


def ports(index: int, size: int) -> Bar:
    return Bar(index, BarKind.IO, size)


def function(
    pci_id: str, *bars: Bar, msix: tuple[int, int, int, int, int] | None = None, **more: Any
) -> PciFunction:
    """*msix*: vectors, table BAR and offset, PBA BAR and offset."""
    capability = None if msix is None else MsixCapability(0x40, *msix)
    class_code = more.pop("class_code", 0x010802)
    return PciFunction(
        Bdf.parse("0000:01:00.0"), PciId.parse(pci_id), class_code, bars, capability, **more
    )


def table(case: VfioCase) -> str:
    """All rows as QEMU would print them; those of the port view after a line ``I/O``."""
    expectation = expect_vfio(case)
    memory = [str(row) for row in expectation.rows_of(Space.MEMORY)]
    port = [str(row) for row in expectation.rows_of(Space.PORTS)]
    return "\n".join(memory + (["I/O", *port] if port else []))


def expect(text: str) -> str:
    """Short form: addresses of 8 digits, ``B0`` for ``0000:01:00.0 BAR 0``, offsets short."""
    lines = []
    for line in dedent(text).strip().splitlines():
        if line == "I/O":
            lines.append(line)
            continue
        where, kind, name, *rest = line.replace(" mmaps", "_mmaps").split()
        start, last = where.split("-")
        if name.startswith("B"):
            name = f"0000:01:00.0 BAR {name[1:].replace('_', ' ')}"
        if name.startswith("base"):
            name = f"0000:01:00.0 base BAR {name[4:]}"
        priority = 1 if "quirk" in name or "base" in name else 0
        tail = "".join(f" @{word[1:]:0>16}" if word[0] == "@" else f" {word}" for word in rest)
        lines.append(f"{start:0>16}-{last:0>16} (prio {priority}, {kind}): {name}{tail}")
    return "\n".join(lines)


NVME = function("1b36:0010", mem(0, 0x4000, BarKind.MEM64), msix=(65, 0, 0x2000, 0, 0x3000))

LAYOUTS = {
    "NST-05 nvme": (
        NVME,
        {0: 0xFE7C0000},
        """
        fe7c0000-fe7c1fff ramd B0 mmaps[0] KVM
        fe7c2000-fe7c240f i/o msix-table
        fe7c2410-fe7c3fff ramd B0 mmaps[0] @2410
        """,
    ),
    "NST-06 nvme with an MSI-X BAR": (
        function(
            "1b36:0010",
            mem(0, 0x2000, BarKind.MEM64),
            mem(4, 0x1000),
            msix=(65, 4, 0, 4, 0x800),
        ),
        {0: 0xFE800000, 4: 0xFE802000},
        """
        fe800000-fe801fff ramd B0 mmaps[0] KVM
        fe802000-fe80240f i/o msix-table
        fe802410-fe802fff ramd B4 mmaps[0] @410
        """,
    ),
    "NST-07 nvme with 512 queues": (
        function("1b36:0010", mem(0, 0x8000, BarKind.MEM64), msix=(513, 0, 0x3000, 0, 0x6000)),
        {0: 0xFE7C0000},
        """
        fe7c0000-fe7c2fff ramd B0 mmaps[0] KVM
        fe7c3000-fe7c500f i/o msix-table
        fe7c5010-fe7c7fff ramd B0 mmaps[0] @5010
        """,
    ),
    "NST-08 xhci": (
        function(
            "1b36:000d",
            mem(0, 0x4000, BarKind.MEM64),
            msix=(16, 0, 0x3000, 0, 0x3800),
            class_code=0x0C0330,
        ),
        {0: 0x380000000000},
        """
        380000000000-380000002fff ramd B0 mmaps[0] KVM
        380000003000-3800000030ff i/o msix-table
        380000003100-380000003fff ramd B0 mmaps[0] @3100
        """,
    ),
    "NST-09 e1000e": (
        function(
            "8086:10d3",
            mem(0, 0x20000),
            mem(1, 0x20000),
            ports(2, 0x20),
            mem(3, 0x4000),
            msix=(5, 3, 0, 3, 0x2000),
            class_code=0x020000,
            rom_size=0x40000,
        ),
        {0: 0xFE400000, 1: 0xFE420000, 2: 0xC040, 3: 0xFE440000},
        """
        fe400000-fe41ffff ramd B0 mmaps[0] KVM
        fe420000-fe43ffff ramd B1 mmaps[0] KVM
        fe440000-fe44004f i/o msix-table
        fe440050-fe443fff ramd B3 mmaps[0] @50
        I/O
        c040-c05f i/o B2
        """,
    ),
    "NST-09 igb": (
        function(
            "8086:10c9",
            mem(0, 0x20000),
            mem(1, 0x20000),
            ports(2, 0x20),
            mem(3, 0x4000),
            msix=(10, 3, 0, 3, 0x2000),
            class_code=0x020000,
        ),
        {0: 0xFE400000, 1: 0xFE420000, 2: 0xC000, 3: 0xFE440000},
        """
        fe400000-fe41ffff ramd B0 mmaps[0] KVM
        fe420000-fe43ffff ramd B1 mmaps[0] KVM
        fe440000-fe44009f i/o msix-table
        fe4400a0-fe443fff ramd B3 mmaps[0] @a0
        I/O
        c000-c01f i/o B2
        """,
    ),
    "NST-10 NST-11 virtio-net": (
        function(
            "1af4:1041",
            mem(1, 0x1000),
            mem(4, 0x4000, BarKind.MEM64),
            msix=(4, 1, 0, 1, 0x800),
            class_code=0x020000,
        ),
        {1: 0xFE7CD000, 4: 0xFD400000},
        """
        fd400000-fd403fff ramd B4 mmaps[0] KVM
        fe7cd000-fe7cd03f i/o msix-table
        fe7cd040-fe7cdfff ramd B1 mmaps[0] @40
        """,
    ),
    "NST-12 edu": (
        function("1234:11e8", mem(0, 0x100000), class_code=0x00FF00),
        {0: 0xFE900000},
        "fe900000-fe9fffff ramd B0 mmaps[0] KVM",
    ),
    "NST-13 pci-testdev": (
        function(
            "1b36:0005",
            mem(0, 0x1000),
            ports(1, 0x100),
            mem(2, 0x10000, BarKind.MEM64),
            class_code=0x00FF00,
        ),
        {0: 0xFEA00000, 1: 0xC100, 2: 0xFE100000},
        """
        fe100000-fe10ffff ramd B2 mmaps[0] KVM
        fea00000-fea00fff ramd B0 mmaps[0] KVM
        I/O
        c100-c1ff i/o B1
        """,
    ),
    "NST-14 ivshmem-plain": (
        function("1af4:1110", mem(0, 0x100), mem(2, 0x400000, BarKind.MEM64), class_code=0x050000),
        {0: 0xFEA01000, 2: 0xFE000000},
        """
        fe000000-fe3fffff ramd B2 mmaps[0] KVM
        fea01000-fea010ff i/o B0
        """,
    ),
    "NST-15 rtl8139": (
        function("10ec:8139", ports(0, 0x100), mem(1, 0x100), class_code=0x020000),
        {0: 0xC000, 1: 0xFEBF1000},
        """
        febf1000-febf10ff i/o B1
        I/O
        c000-c0ff i/o B0
        """,
    ),
    "NST-16 ahci": (
        function("8086:2922", ports(4, 0x20), mem(5, 0x1000), class_code=0x010601),
        {4: 0xC080, 5: 0xFEBF2000},
        """
        febf2000-febf2fff ramd B5 mmaps[0] KVM
        I/O
        c080-c09f i/o B4
        """,
    ),
    "NST-17 megasas-gen2": (
        function(
            "1000:005b",
            ports(0, 0x100),
            mem(1, 0x4000),
            mem(3, 0x40000),
            msix=(15, 1, 0x2000, 1, 0x3800),
            class_code=0x010400,
        ),
        {0: 0xC000, 1: 0xFEB40000, 3: 0xFEB00000},
        """
        feb00000-feb3ffff ramd B3 mmaps[0] KVM
        feb40000-feb41fff ramd B1 mmaps[0] KVM
        feb42000-feb420ef i/o msix-table
        feb420f0-feb43fff ramd B1 mmaps[0] @20f0
        I/O
        c000-c0ff i/o B0
        """,
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_map_of_a_known_device_is_predicted_byte_for_byte(layout: str) -> None:
    device, addresses, text = LAYOUTS[layout]

    assert table(VfioCase(device, KERNEL, QEMU, addresses, kvm=True)) == expect(text)


def test_the_published_map_of_an_xl710_comes_out_to_the_letter() -> None:
    """QEMU 2.11 or a kernel before 4.16: no capability, table of 129 vectors at 0."""
    xl710 = PciFunction(
        Bdf.parse("0000:03:00.3"),
        PciId.parse("8086:1572"),
        0x020000,
        (mem(0, 0x800000, BarKind.MEM64), mem(3, 0x8000, BarKind.MEM64)),
        MsixCapability(0x70, 129, 3, 0, 3, 0x1000),
    )
    published = """\
      00000000fe000000-00000000fe7fffff (prio 0, ramd): 0000:03:00.3 BAR 0 mmaps[0]
      00000000fe800000-00000000fe80080f (prio 0, i/o): msix-table
      00000000fe800810-00000000fe800fff (prio 0, i/o): 0000:03:00.3 BAR 3 @0000000000000810
      00000000fe801000-00000000fe807fff (prio 0, ramd): 0000:03:00.3 BAR 3 mmaps[0]"""
    addresses = {0: 0xFE000000, 3: 0xFE800000}

    for kernel, qemu in (("4.4", "2.11.1"), ("4.15.18", "4.0.0"), ("6.1", "2.11.1")):
        case = VfioCase(
            xl710, KernelVersion.parse(kernel), QemuVersion.parse(qemu), addresses, kvm=True
        )
        assert indent(table(case), "      ") == published


def nvme(**more: Any) -> VfioCase:
    values: dict[str, Any] = {"kernel": KERNEL, "qemu": QEMU, "kvm": True} | more
    for key, version in (("kernel", KernelVersion), ("qemu", QemuVersion)):
        if isinstance(values[key], str):
            values[key] = version.parse(values[key])
    return VfioCase(
        values.pop("function", NVME), bar_addresses=values.pop("at", {0: 0xFE000000}), **values
    )


WHOLE_BUT_TABLE = """
    fe000000-fe001fff ramd B0 mmaps[0] KVM
    fe002000-fe00240f i/o msix-table
    fe002410-fe003fff ramd B0 mmaps[0] @2410
    """
TABLE_PAGE_OUT = """
    fe000000-fe001fff ramd B0 mmaps[0] KVM
    fe002000-fe00240f i/o msix-table
    fe002410-fe002fff i/o B0 @2410
    fe003000-fe003fff ramd B0 mmaps[1] KVM
    """
ALL_SLOW = """
    fe000000-fe001fff i/o B0
    fe002000-fe00240f i/o msix-table
    fe002410-fe003fff i/o B0 @2410
    """


@pytest.mark.parametrize(
    ("kernel", "qemu", "text"),
    [
        ("4.16", "4.1", WHOLE_BUT_TABLE),
        ("4.16-rc1", "4.0.90", WHOLE_BUT_TABLE),
        ("4.15.18", "10.0", TABLE_PAGE_OUT),
        ("4.6", "10.0", TABLE_PAGE_OUT),
        ("4.5", "10.0", TABLE_PAGE_OUT),
        ("3.10", "10.0", TABLE_PAGE_OUT),
    ],
)
def test_the_table_page_depends_on_the_kernel(kernel: str, qemu: str, text: str) -> None:
    assert table(nvme(kernel=kernel, qemu=qemu)) == expect(text)


def test_the_table_page_depends_on_qemu() -> None:
    assert table(nvme(qemu="2.11.2")) == expect(TABLE_PAGE_OUT.replace(" KVM", ""))
    assert table(nvme(qemu="2.12.0")) == expect(WHOLE_BUT_TABLE.replace(" KVM", ""))


def test_marks_come_with_kvm_and_qemu_4_1_only() -> None:
    def marks(**more: Any) -> list[bool | None]:
        return [row.marked for row in expect_vfio(nvme(**more)).rows_of(Space.MEMORY)]

    assert marks() == [True, False, False]
    assert marks(kvm=False) == [False, False, False]
    assert marks(qemu="4.0.1") == [None, None, None]
    assert marks(qemu="4.0.1", kvm=False) == [False, False, False]


def test_the_unit_is_the_page_of_the_host() -> None:
    """Rule MAP-08: with 64K pages a 16K BAR is below a page."""
    big = function("1b36:0010", mem(0, 0x40000), msix=(65, 0, 0x12000, 0, 0x13000))

    assert table(nvme(function=big, page=0x10000, kernel="4.15")) == expect(
        """
        fe000000-fe00ffff ramd B0 mmaps[0] KVM
        fe010000-fe011fff i/o B0 @10000
        fe012000-fe01240f i/o msix-table
        fe012410-fe01ffff i/o B0 @12410
        fe020000-fe03ffff ramd B0 mmaps[1] KVM
        """
    )
    assert table(nvme(page=0x10000)) == expect(ALL_SLOW)
    assert table(nvme(page=0x10000, subpage_reserved={0})) == expect(
        """
        fe000000-fe001fff ramd B0 mmaps[0]
        fe002000-fe00240f i/o msix-table
        fe002410-fe00ffff ramd B0 mmaps[0] @2410
        """
    )


@pytest.mark.parametrize(
    ("vectors", "offset", "text"),
    [
        pytest.param(
            64,
            0,
            """
            fe000000-fe0003ff i/o msix-table
            fe000400-fe000fff i/o B0 @400
            fe001000-fe003fff ramd B0 mmaps[0] KVM
            """,
            id="at the start",
        ),
        pytest.param(
            64,
            0x3800,
            """
            fe000000-fe002fff ramd B0 mmaps[0] KVM
            fe003000-fe0037ff i/o B0 @3000
            fe003800-fe003bff i/o msix-table
            fe003c00-fe003fff i/o B0 @3c00
            """,
            id="at the end",
        ),
        pytest.param(
            1022,
            0,
            """
            fe000000-fe003fdf i/o msix-table
            fe003fe0-fe003fff i/o B0 @3fe0
            """,
            id="everywhere",
        ),
    ],
)
def test_without_the_capability_mmaps_lie_beside_the_table(
    vectors: int, offset: int, text: str
) -> None:
    """Rule MAP-06: one after it, one before it, or none."""
    other = function("1b36:0010", mem(0, 0x4000), mem(1, 0x1000), msix=(vectors, 0, offset, 1, 0))
    for kernel in ("4.4", "4.15"):
        assert table(nvme(function=other, kernel=kernel)) == expect(text)


def test_x_no_mmap_maps_nothing_but_still_emulates_the_table() -> None:
    assert table(nvme(options=VfioOptions(no_mmap=True))) == expect(ALL_SLOW)


def test_a_region_that_cannot_be_mapped_is_slow() -> None:
    assert table(nvme(regions={0: RegionFacts(mappable=False)})) == expect(ALL_SLOW)


def test_a_pending_intx_takes_the_mmaps_away() -> None:
    assert table(nvme(state=VfioState(mmaps_off=True))) == expect(ALL_SLOW)


def test_pending_bits_show_while_a_masked_vector_is_pending() -> None:
    assert table(nvme(state=VfioState(pba_shown=True))) == expect(
        """
        fe000000-fe001fff ramd B0 mmaps[0] KVM
        fe002000-fe00240f i/o msix-table
        fe002410-fe002fff ramd B0 mmaps[0] @2410
        fe003000-fe00300f i/o msix-pba
        fe003010-fe003fff ramd B0 mmaps[0] @3010
        """
    )


def check_whole_bar_is_direct(case: VfioCase) -> None:
    assert table(case) == expect("fe000000-fe003fff ramd B0 mmaps[0] KVM")


@pytest.mark.rule("MAP-35")
def test_pseries_has_no_emulated_table() -> None:
    check_whole_bar_is_direct(nvme(options=VfioOptions(no_msix_emulation=True)))


@pytest.mark.negative_control("MAP-35")
def test_a_machine_that_emulates_the_table_is_noticed() -> None:
    with must_fail():
        check_whole_bar_is_direct(nvme())


def test_sparse_areas_are_mapped_one_by_one() -> None:
    areas = (AddressRange(0x1000, 0x1000), AddressRange(0x3000, 0x1000))
    facts = RegionFacts(mappable=True, sparse=areas)

    assert table(nvme(regions={0: facts})) == expect(
        """
        fe000000-fe000fff i/o B0
        fe001000-fe001fff ramd B0 mmaps[0] KVM
        fe002000-fe00240f i/o msix-table
        fe002410-fe002fff i/o B0 @2410
        fe003000-fe003fff ramd B0 mmaps[1] KVM
        """
    )


def test_nothing_shows_while_nothing_decodes() -> None:
    """Rule MAP-27."""
    expectation = expect_vfio(nvme(at={}))

    assert (expectation.windows, expectation.rows) == ((), ())


def test_the_rom_shows_only_where_it_decodes() -> None:
    device = function("1b36:0010", mem(0, 0x4000), rom_size=0x10000)

    assert table(nvme(function=device, rom_address=0xFE100000)).splitlines()[1] == (
        "00000000fe100000-00000000fe10ffff (prio 0, i/o): vfio[0000:01:00.0].rom"
    )
    assert ".rom" not in table(nvme(function=device))


TINY = function("1af4:1110", mem(0, 0x100), mem(1, 0x400), class_code=0x050000)


@pytest.mark.parametrize(
    ("at", "more", "text"),
    [
        pytest.param(
            {0: 0xFE001000},
            {},
            "fe001000-fe001fff ramd B0 mmaps[0] KVM",
            id="alone in its page: fills it",
        ),
        pytest.param(
            {0: 0xFE001100},
            {},
            "fe001100-fe0011ff ramd B0 mmaps[0]",
            id="not on a page: keeps its size",
        ),
        pytest.param(
            {0: 0xFE001000, 1: 0xFE001400},
            {},
            """
            fe001000-fe0013ff ramd B0 mmaps[0]
            fe001400-fe0017ff ramd B1 mmaps[0]
            fe001800-fe001fff ramd B0 mmaps[0] @800
            """,
            id="shares its page: gives way",
        ),
        pytest.param(
            {0: 0xFE001000},
            {"neighbours": (AddressRange(0xFE001100, 0xF00),)},
            "fe001000-fe0010ff ramd B0 mmaps[0]",
            id="gives way to another device",
        ),
        pytest.param(
            {0: 0xFE001000},
            {"state": VfioState(mmaps_off=True)},
            "fe001000-fe001fff i/o B0",
            id="fills its page while its mmap is off",
        ),
        pytest.param({0: 0xFE001000}, {"kernel": "4.7"}, "fe001000-fe0010ff i/o B0", id="4.7"),
        pytest.param(
            {0: 0xFE001000},
            {"subpage_reserved": ()},
            "fe001000-fe0010ff i/o B0",
            id="its host page is not its own",
        ),
        pytest.param(
            {0: 0xFE001000},
            {"options": VfioOptions(no_mmap=True)},
            "fe001000-fe0010ff i/o B0",
            id="x-no-mmap",
        ),
    ],
)
def test_a_bar_below_a_page(at: dict[int, int], more: dict[str, Any], text: str) -> None:
    """Rules MAP-15 and MAP-16."""
    case = nvme(**({"function": TINY, "at": at, "subpage_reserved": {0, 1}} | more))

    assert table(case) == expect(text)


def test_a_relocated_table_gets_its_own_half_of_a_bar() -> None:
    """Rule MAP-20: what is beside the table belongs to nobody, and the old place is direct."""
    case = nvme(options=VfioOptions(msix_relocation=0))

    assert table(case) == expect(
        """
        fe000000-fe003fff ramd B0 mmaps[0] KVM
        fe004000-fe00440f i/o msix-table
        fe004410-fe007fff i/o base0 @4410
        """
    )


def test_a_relocated_table_can_get_a_bar_of_its_own() -> None:
    case = nvme(options=VfioOptions(msix_relocation=2), at={0: 0xFE000000, 2: 0xFE010000})

    assert table(case) == expect(
        """
        fe000000-fe003fff ramd B0 mmaps[0] KVM
        fe010000-fe01040f i/o msix-table
        fe010410-fe010fff i/o base2 @410
        """
    )


def test_a_relocated_table_leaves_its_pages_unmapped_without_the_capability() -> None:
    case = nvme(
        options=VfioOptions(msix_relocation=2), at={0: 0xFE000000, 2: 0xFE010000}, kernel="4.15"
    )

    assert (
        table(case).splitlines()[:3]
        == expect(
            """
        fe000000-fe001fff ramd B0 mmaps[0] KVM
        fe002000-fe002fff i/o B0 @2000
        fe003000-fe003fff ramd B0 mmaps[1] KVM
        """
        ).splitlines()
    )


def test_a_name_of_another_kind_replaces_the_address() -> None:
    """Rules NM-03 and NM-04: mediated devices and passed file descriptors."""
    assert " VFIO_FD7 BAR 0 mmaps[0]" in table(nvme(name="VFIO_FD7"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"qemu": "2.8.1"}, "2.9 is the first"),
        ({"qemu": "2.11", "options": VfioOptions(msix_relocation=1)}, "needs QEMU 2.12"),
        ({"at": {1: 0xFE000000}}, "BAR 1, which 0000:01:00.0 has not"),
        ({"at": {0: 0xFE001000}}, "cannot be at 0xfe001000"),
        ({"function": TINY, "at": {0: 0x1000, 1: 0x1000}}, "overlaps BAR 0"),
        ({"rom_address": 0x1000}, "ROM"),
    ],
)
def test_a_case_that_contradicts_itself_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expect_vfio(nvme(**more))


@pytest.mark.parametrize(
    ("msix", "message"),
    [
        ((65, 0, 0x2000, 0, 0x4000), "MSIX PBA outside of specified BAR"),
        ((65, 0, 0x2000, 3, 0), "MSIX PBA outside of specified BAR"),
        ((2048, 0, 0x2000, 0, 0), "don't fit in BARs"),
        ((65, 0, 0x2000, 0, 0x2400), "overlap"),
    ],
)
def test_a_device_that_qemu_refuses_has_no_map(
    msix: tuple[int, int, int, int, int], message: str
) -> None:
    with pytest.raises(VfioRefused, match=message):
        expect_vfio(nvme(function=function("1b36:0010", mem(0, 0x4000), msix=msix)))


@pytest.mark.parametrize(
    ("pci_id", "size", "wrong"), [("1425:5801", 0x2000, 0x8000), ("1d22:3685", 0x10000, 0x460000)]
)
def test_known_wrong_pba_offsets_are_corrected(pci_id: str, size: int, wrong: int) -> None:
    """Rule MAP-23."""
    device = function(pci_id, mem(0, size), msix=(8, 0, 0, 0, wrong))

    assert expect_vfio(nvme(function=device)).rows
