"""The judge: silent about the map that must be, loud about any other."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.model.address import AddressRange
from harness.model.expectation import Expectation, ExpectedRow, Space
from harness.model.memory_map import AddressSpace, FlatView, Kind, MemoryMap, Owner, Region
from harness.model.pci import Bar, BarKind, Bdf, MsixCapability, PciFunction, PciId
from harness.model.row_rule import RowRule
from harness.model.version import KernelVersion, QemuVersion
from harness.model.vfio.case import Transport, VfioCase
from harness.model.vfio.expectation import expect_vfio
from harness.model.vfio.mapping import RegionFacts, VfioOptions, VfioState

RAM = Region(AddressRange(0, 0x8000_0000), Kind.RAM, "pc.ram", accelerators=("KVM",))
VAPIC = Region(AddressRange(0xFEE0_0000, 0x1000), Kind.IO, "apic-msi")
PIT = Region(AddressRange(0x40, 4), Kind.IO, "pit")


def machine(memory: list[Region], ports: list[Region]) -> MemoryMap:
    """A map as a machine would show it, with rows that are none of the device's business."""

    def view(name: str, rows: list[Region]) -> FlatView:
        return FlatView((AddressSpace(name),), name, tuple(sorted(rows, key=lambda r: r.range)))

    return MemoryMap((view("I/O", [PIT, *ports]), view("memory", [RAM, VAPIC, *memory])))


def rendered(expectation: Expectation) -> MemoryMap:
    """The very map that is expected."""
    memory = [row.region() for row in expectation.rows_of(Space.MEMORY)]
    return machine(memory, [row.region() for row in expectation.rows_of(Space.PORTS)])


@given(st.data())
def test_rows_fill_each_window_exactly(
    vfio_cases: st.SearchStrategy[VfioCase], data: st.DataObject
) -> None:
    expectation = expect_vfio(data.draw(vfio_cases))

    for window in expectation.windows:
        at = window.range.start
        for row in expectation.rows_in(window):
            assert row.range.start == at
            at = row.range.end
        assert at == window.range.end
    for space in Space:
        ranges = sorted(w.range for w in expectation.windows if w.space is space)
        assert all(a.end <= b.start for a, b in pairwise(ranges))
        assert sum(r.size for r in ranges) == sum(
            row.range.size for row in expectation.rows_of(space)
        )


@given(st.data())
def test_the_expected_map_is_accepted(
    vfio_cases: st.SearchStrategy[VfioCase], data: st.DataObject
) -> None:
    expectation = expect_vfio(data.draw(vfio_cases))

    assert expectation.compare(rendered(expectation)) == ()
    assert expectation.explain(rendered(expectation)) == ""


def flip_kind(row: Region) -> list[Region]:
    return [replace(row, kind=Kind.IO if row.kind is Kind.RAMD else Kind.RAMD)]


def drop(row: Region) -> list[Region]:
    return []


def rename(row: Region) -> list[Region]:
    return [replace(row, name=row.name + "x")]


def change_offset(row: Region) -> list[Region]:
    return [replace(row, offset=row.offset + 0x10)]


def cut_head(row: Region) -> list[Region]:
    return [replace(row, range=AddressRange.of(row.range.start + 1, row.range.end))]


def cut_tail(row: Region) -> list[Region]:
    return [replace(row, range=AddressRange.of(row.range.start, row.range.end - 1))]


def split(row: Region) -> list[Region]:
    half = row.range.start + row.range.size // 2
    low, high = AddressRange.of(row.range.start, half), AddressRange.of(half, row.range.end)
    moved = row.offset + low.size
    return [replace(row, range=low), replace(row, range=high, offset=moved)]


def flip_mark(row: Region) -> list[Region]:
    return [replace(row, accelerators=() if row.in_kvm else ("KVM",))]


def repeat_elsewhere(row: Region) -> list[Region]:
    return [row, replace(row, range=row.range.shifted(0x10_0000_0000))]


MUTATIONS: dict[str, Callable[[Region], list[Region]]] = {
    "kind flipped": flip_kind,
    "row dropped": drop,
    "name changed": rename,
    "offset changed": change_offset,
    "boundary moved up": cut_head,
    "boundary moved down": cut_tail,
    "row cut in two": split,
    "mark flipped": flip_mark,
    "row repeated elsewhere": repeat_elsewhere,
}


@pytest.mark.parametrize("mutation", MUTATIONS)
@given(data=st.data())
def test_any_single_change_is_found(
    mutation: str, vfio_cases: st.SearchStrategy[VfioCase], data: st.DataObject
) -> None:
    """The negative control of the oracle."""
    expectation = expect_vfio(data.draw(vfio_cases))
    assume(expectation.rows)
    space, chosen = data.draw(st.sampled_from(expectation.rows))
    assume(mutation != "mark flipped" or chosen.marked is not None)
    # A table or quirk alone does not say whose it is; only in a window it is known.
    assume(mutation != "row repeated elsewhere" or expectation.name in chosen.name)

    rows: dict[Space, list[Region]] = {Space.MEMORY: [], Space.PORTS: []}
    for row_space, row in expectation.rows:
        changed = row is chosen and row_space is space
        rows[row_space] += MUTATIONS[mutation](row.region()) if changed else [row.region()]
    differences = expectation.compare(machine(rows[Space.MEMORY], rows[Space.PORTS]))

    assert differences
    assert all(difference.explain() for difference in differences)
    if mutation in ("kind flipped", "name changed", "offset changed", "row dropped"):
        assert differences[0].expected == chosen
        assert differences[0].rule == chosen.rule
    elif mutation == "mark flipped":
        assert [d.rule for d in differences] == ["MT-18"]


@given(st.data())
def test_a_boundary_between_two_rows_may_not_move(
    vfio_cases: st.SearchStrategy[VfioCase], data: st.DataObject
) -> None:
    expectation = expect_vfio(data.draw(vfio_cases))
    memory = [row.region() for row in expectation.rows_of(Space.MEMORY)]
    pairs = [i for i in range(len(memory) - 1) if memory[i].range.end == memory[i + 1].range.start]
    assume(pairs)
    index = data.draw(st.sampled_from(pairs))
    low, high = memory[index], memory[index + 1]
    by = data.draw(st.integers(1, high.range.size))
    grown = replace(low, range=AddressRange(low.range.start, low.range.size + by))
    rest = []
    if by < high.range.size:
        shrunk = AddressRange.of(high.range.start + by, high.range.end)
        rest = [replace(high, range=shrunk, offset=high.offset + by)]
    ports = [row.region() for row in expectation.rows_of(Space.PORTS)]

    moved = machine([*memory[:index], grown, *rest, *memory[index + 2 :]], ports)

    assert expectation.compare(moved)


def case(**more: Any) -> VfioCase:
    """An nvme of 16K under KVM, changed by *more*; ``device`` changes the function."""
    nvme = PciFunction(
        bdf=Bdf.parse("0000:01:00.0"),
        id=PciId.parse(more.pop("pci_id", "1b36:0010")),
        class_code=more.pop("class_code", 0x010802),
        bars=more.pop("bars", (Bar(0, BarKind.MEM64, 0x4000),)),
        msix=more.pop("msix", MsixCapability(0x40, 65, 0, 0x2000, 0, 0x3000)),
        rom_size=0x10000,
    )
    values: dict[str, Any] = {
        "kernel": KernelVersion(6, 12, 48),
        "qemu": QemuVersion(10, 0, 2),
        "bar_addresses": {bar.index: 0xF000_0000 + bar.index * 0x100_0000 for bar in nvme.bars},
        "kvm": True,
    }
    return VfioCase(nvme, **(values | more))


GPU = (Bar(0, BarKind.MEM32, 0x100_0000), Bar(2, BarKind.MEM64, 0x10000), Bar(5, BarKind.IO, 0x80))
GPU_AT = {0: 0xF000_0000, 2: 0xF200_0000, 5: 0xC000}
VGA: dict[str, Any] = {
    "class_code": 0x030000,
    "bars": GPU,
    "msix": None,
    "bar_addresses": GPU_AT,
    "options": VfioOptions(vga=True),
}
TINY: dict[str, Any] = {"bars": (Bar(0, BarKind.MEM32, 0x100),), "msix": None}
PLAIN: dict[str, Any] = {"msix": None}
SPARSE = {0: RegionFacts(True, sparse=(AddressRange(0x1000, 0x1000),))}
RTL: dict[str, Any] = {"bars": (Bar(2, BarKind.MEM64, 0x1000),), "msix": None}
MOVED = {0: 0xF000_0000, 2: 0xF100_0000}

USER: dict[str, Any] = {
    "transport": Transport.USER,
    "regions": {0: RegionFacts(True, msix_mappable=True)},
}
SMALL: dict[str, Any] = TINY | {"subpage_reserved": {0}, "bar_addresses": {0: 0xF000_0100}}

# For each rule: a world where it holds, and the same world where it is broken.
WORLDS: dict[RowRule, tuple[VfioCase, VfioCase]] = {
    RowRule.WHOLE: (case(**PLAIN), case(**PLAIN, options=VfioOptions(no_mmap=True))),
    RowRule.TABLE: (case(), case(options=VfioOptions(no_msix_emulation=True))),
    RowRule.TABLE_PAGES: (case(kernel=KernelVersion(4, 15)), case()),
    RowRule.AROUND_TABLE: (case(), case(kernel=KernelVersion(4, 15))),
    RowRule.BESIDE_TABLE_PAGES: (
        case(kernel=KernelVersion(4, 15)),
        case(kernel=KernelVersion(4, 15), options=VfioOptions(no_mmap=True)),
    ),
    RowRule.PBA: (case(state=VfioState(pba_shown=True)), case()),
    RowRule.PORTS: (
        case(bars=(Bar(0, BarKind.IO, 0x20),), msix=None, bar_addresses={0: 0xC000}),
        case(bars=(Bar(0, BarKind.IO, 0x20),), msix=None, bar_addresses={0: 0xC020}),
    ),
    RowRule.SUBPAGE_SLOW: (case(**TINY), case(**TINY, subpage_reserved={0})),
    RowRule.SUBPAGE: (case(**TINY, subpage_reserved={0}), case(**TINY)),
    RowRule.SPARSE: (case(**PLAIN, regions=SPARSE), case(**PLAIN)),
    RowRule.NO_MMAP: (case(**PLAIN, options=VfioOptions(no_mmap=True)), case(**PLAIN)),
    RowRule.NOT_MAPPABLE: (case(**PLAIN, regions={0: RegionFacts(False)}), case(**PLAIN)),
    RowRule.RELOCATED: (
        case(options=VfioOptions(msix_relocation=2), bar_addresses=MOVED),
        case(),
    ),
    RowRule.NO_EMULATION: (
        case(options=VfioOptions(no_msix_emulation=True)),
        case(options=VfioOptions(no_msix_emulation=True), regions={0: RegionFacts(False)}),
    ),
    RowRule.USER_PBA: (case(**USER), case(regions=USER["regions"])),
    RowRule.GROWN: (case(**SMALL, grown={0}), case(**SMALL)),
    RowRule.INTX: (case(state=VfioState(mmaps_off=True)), case()),
    RowRule.ROM: (case(rom_address=0xFA00_0000), case()),
    RowRule.NVIDIA_88000: (
        case(pci_id="10de:1b80", **(VGA | {"options": VfioOptions()})),
        case(pci_id="10de:1b80", **(VGA | {"options": VfioOptions(no_geforce_quirks=True)})),
    ),
    RowRule.NVIDIA_1800: (
        case(pci_id="10de:1b80", **VGA),
        case(pci_id="10de:1b80", **(VGA | {"options": VfioOptions()})),
    ),
    RowRule.NVIDIA_BAR5: (case(pci_id="10de:1b80", **VGA), case(pci_id="10df:1b80", **VGA)),
    RowRule.ATI: (case(pci_id="1002:6819", **VGA), case(pci_id="1003:6819", **VGA)),
    RowRule.RTL8168: (case(pci_id="10ec:8168", **RTL), case(pci_id="10ec:8169", **RTL)),
    RowRule.IGD: (
        case(pci_id="8086:4680", **VGA),
        case(pci_id="8086:4680", **VGA, qemu=QemuVersion(9, 1)),
    ),
}


@pytest.mark.parametrize("rule", RowRule)
def test_a_world_that_breaks_a_rule_is_noticed_under_its_id(rule: RowRule) -> None:
    holds, broken = (expect_vfio(world) for world in WORLDS[rule])

    assert holds.compare(rendered(holds)) == ()
    assert rule in {difference.rule for difference in holds.compare(rendered(broken))}


def test_rows_of_a_function_that_does_not_decode_are_found() -> None:
    """Rule MAP-27."""
    off, on = expect_vfio(case(bar_addresses={})), expect_vfio(case())

    assert {difference.rule for difference in off.compare(rendered(on))} == {"MAP-27"}


def test_rows_where_the_guest_did_not_put_them_are_found() -> None:
    """Rule MAP-28."""
    here, there = expect_vfio(case()), expect_vfio(case(bar_addresses={0: 0xF800_0000}))

    assert {difference.rule for difference in here.compare(rendered(there))} == {
        "MAP-04",
        "MAP-28",
    }


def owned(expectation: Expectation, device: str) -> MemoryMap:
    rows = [
        replace(row.region(), owner=Owner("dev", "id", device))
        for row in expectation.rows_of(Space.MEMORY)
    ]
    return machine(rows, [])


def test_owners_are_judged_where_the_map_has_them() -> None:
    expectation = expect_vfio(case(device_id="nvme0"))

    assert expectation.compare(owned(expectation, "nvme0")) == ()
    assert expectation.compare(rendered(expectation)) == ()
    assert [d.rule for d in expectation.compare(owned(expectation, "nvme1"))] == ["MT-26"]


def test_a_table_elsewhere_is_known_by_its_owner() -> None:
    expectation = expect_vfio(case(device_id="nvme0"))
    stray = Region(
        AddressRange(0xFC00_0000, 0x410), Kind.IO, "msix-table", owner=Owner("dev", "id", "nvme0")
    )
    rows = [row.region() for row in expectation.rows_of(Space.MEMORY)]

    assert [d.found for d in expectation.compare(machine([*rows, stray], []))] == [stray]


def test_legacy_vga_rows_belong_to_a_card_with_x_vga() -> None:
    vga = Region(
        AddressRange(0xA0000, 0x20000),
        Kind.IO,
        "vfio-vga-mmio@0xa0000",
        owner=Owner("dev", "id", "gpu"),
    )
    values = VGA | {"bars": GPU[:2], "bar_addresses": {0: 0xF000_0000, 2: 0xF200_0000}}
    on = expect_vfio(case(pci_id="1003:1b80", device_id="gpu", **values))
    off = expect_vfio(
        case(pci_id="1003:1b80", device_id="gpu", **(values | {"options": VfioOptions()}))
    )
    view = FlatView(
        (AddressSpace("memory"),),
        "system",
        (vga, *(row.region() for row in on.rows_of(Space.MEMORY))),
    )

    assert on.compare(MemoryMap((view,))) == ()
    assert [d.found for d in off.compare(MemoryMap((view,)))] == [vga]


def test_repeated_marks_are_one() -> None:
    expectation = expect_vfio(case(**PLAIN))
    (row,) = expectation.rows_of(Space.MEMORY)
    twice = replace(row.region(), accelerators=("KVM", "KVM"))

    assert expectation.compare(machine([twice], [])) == ()


def test_a_port_bar_in_a_map_without_ports_is_missing() -> None:
    world, _ = WORLDS[RowRule.PORTS]
    expectation = expect_vfio(world)
    memory = FlatView((AddressSpace("memory"),), "system", (RAM,))

    (difference,) = expectation.compare(MemoryMap((memory,)))

    assert (difference.rule, difference.found) == ("MAP-11", None)


def test_a_map_without_guest_memory_is_refused() -> None:
    with pytest.raises(KeyError, match="memory"):
        expect_vfio(case()).compare(MemoryMap(()))


def test_the_explanation_shows_both_tables_and_the_rule() -> None:
    expectation = expect_vfio(case())
    old = expect_vfio(case(kernel=KernelVersion(4, 15)))

    assert [line.rstrip() for line in expectation.explain(rendered(old)).splitlines()] == [
        '[MAP-04] BAR 0 at f0000000-f0003fff of "memory", from +0x2410:'
        " range: expected f0002410-f0003fff, found f0002410-f0002fff;"
        " type: expected ramd, found i/o;"
        " name: expected 0000:01:00.0 BAR 0 mmaps[0], found 0000:01:00.0 BAR 0",
        "    expected                                                   found",
        "    f0000000-f0001fff ramd 0000:01:00.0 BAR 0 mmaps[0] KVM     "
        "f0000000-f0001fff ramd 0000:01:00.0 BAR 0 mmaps[0] KVM",
        "    f0002000-f000240f i/o msix-table                           "
        "f0002000-f000240f i/o msix-table",
        " != f0002410-f0003fff ramd 0000:01:00.0 BAR 0 mmaps[0] @2410   "
        "f0002410-f0002fff i/o 0000:01:00.0 BAR 0 @2410",
        "  |                                                            "
        "f0003000-f0003fff ramd 0000:01:00.0 BAR 0 mmaps[1] KVM",
    ]


def test_the_explanation_leaves_out_rows_far_from_the_difference() -> None:
    areas = tuple(AddressRange(n * 0x2000, 0x1000) for n in range(8))
    values: dict[str, Any] = {
        "msix": None,
        "bars": (Bar(0, BarKind.MEM64, 0x10000),),
        "regions": {0: RegionFacts(True, sparse=areas)},
    }
    expectation = expect_vfio(case(**values))
    rows = [row.region() for row in expectation.rows_of(Space.MEMORY)]
    rows[9] = replace(rows[9], kind=Kind.RAM)

    lines = expectation.explain(machine(rows, [])).splitlines()

    assert lines[2] == "    (6 equal rows before)"
    assert [line[:3] for line in lines[3:]] == ["   ", "   ", "   ", " !=", "   ", "   ", "   "]


def test_a_row_reads_as_qemu_prints_it() -> None:
    row = ExpectedRow(
        AddressRange(0xFE002410, 0x1BF0), Kind.RAMD, "B mmaps[0]", 0x2410, True, "MAP-04"
    )

    assert str(row) == (
        "00000000fe002410-00000000fe003fff (prio 0, ramd): B mmaps[0] @0000000000002410 KVM"
    )
