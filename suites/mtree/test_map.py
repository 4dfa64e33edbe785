"""The flat form of ``info mtree``: what holds for every map."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.lab.dump import Dump
from harness.lab.nested import Nested
from harness.machine.machine import Machine
from harness.model.address import AddressRange
from harness.model.memory_map import FlatView, Kind, MemoryMap, Owner, Region
from harness.parse.mtree import parse_memory_map
from harness.testing import must_fail

both = pytest.mark.parametrize("dump", ["paused", "resident"], indirect=True)
LISTENED = ("memory", "KVM-SMRAM")
"""Address spaces that KVM listens to (``kvm_memory_listener_register()``)."""


def keyed(memory_map: MemoryMap) -> Counter[object]:
    """Return the views by the names that share them: order and numbers left out."""
    return Counter((tuple(sorted(s.name for s in v.spaces)), v.regions) for v in memory_map)


def check_same(one: MemoryMap, other: MemoryMap) -> None:
    """Two maps say the same of every address space."""
    left, right = keyed(one), keyed(other)
    assert left == right, [*(left - right), *(right - left)][:2]


@pytest.mark.rule("MT-08")
def test_numbers_and_order_of_views_mean_nothing(resident_dump: Dump, nested: Nested) -> None:
    """Two readings are equal once views are told apart by the names of their spaces."""
    check_same(resident_dump.map, nested.machine.memory_map())


@pytest.mark.rule("MT-08")
def test_views_in_another_order_are_the_same_map(paused_dump: Dump) -> None:
    """A text whose views come in the opposite order, renumbered, says the same."""
    views = re.split(r"^(?=FlatView #)", paused_dump.flat, flags=re.M)[1:]
    turned = "".join(reversed([re.sub(r"#\d+", "#7", view, count=1) for view in views]))

    check_same(paused_dump.map, parse_memory_map(turned))


@pytest.mark.negative_control("MT-08", "ENV-13")
def test_a_row_that_changed_is_noticed(paused_dump: Dump) -> None:
    """A map in which one kind of row is missing is not the same."""

    def without_rom(row: Region) -> Region | None:
        return None if row.kind is Kind.ROM else row

    with must_fail():
        check_same(paused_dump.map, paused_dump.map.altered(without_rom))


SPACE_LINES = re.compile(r"(?:^ AS .*\n){2,}", re.M)


@both
@pytest.mark.rule("MT-09")
def test_spaces_of_a_view_are_a_set(dump: Dump) -> None:
    """The address spaces of one view may come in any order."""

    def turned(lines: re.Match[str]) -> str:
        return "".join(reversed(lines[0].splitlines(keepends=True)))

    text, count = SPACE_LINES.subn(turned, dump.flat)

    assert count, "no view has two address spaces"
    check_same(dump.map, parse_memory_map(text))


@pytest.mark.negative_control("MT-09")
def test_a_space_in_another_view_is_noticed(paused_dump: Dump) -> None:
    """A map in which one address space is listed in another view is not the same."""
    line = ' AS "I/O", root: io\n'
    moved = paused_dump.flat.replace(line, "").replace(' AS "memory"', line + ' AS "memory"', 1)
    # The view it left has no name any more: its rows go too.
    moved = re.sub(r"FlatView #\d+\n Root memory region: io\n(?:  .*\n)*\n", "", moved)

    with must_fail():
        check_same(paused_dump.map, parse_memory_map(moved))


def check_offsets(dump: Dump, memory_map: MemoryMap) -> None:
    """The offset of a row counts from the start of the region it names."""
    starts: dict[tuple[str, Owner | None], int] = {
        (node.name, node.owner): node.range.start
        for node in dump.shown.walk()
        if node.alias is None and node.owner is not None and node.owner.key == "id"
    }
    rows = [r for r in memory_map.memory.regions if (r.name, r.owner) in starts]
    wrong = [r for r in rows if r.offset != r.range.start - starts[r.name, r.owner]]
    assert any(row.offset for row in rows), "no row has an offset"
    assert not wrong, wrong[:3]


@pytest.mark.rule("MT-12")
def test_offset_is_that_of_the_named_region(resident_dump: Dump) -> None:
    """A row has an offset iff it starts behind the start of the region that it names."""
    assert " @0000000000000000" not in resident_dump.flat
    check_offsets(resident_dump, resident_dump.map)


@pytest.mark.negative_control("MT-12")
def test_an_offset_inside_the_bar_is_noticed(resident_dump: Dump) -> None:
    """A map whose offsets count from the BAR's page fails the check."""

    def of_the_page(row: Region) -> Region:
        return replace(row, offset=row.offset & ~0xFFF)

    with must_fail():
        check_offsets(resident_dump, resident_dump.map.altered(of_the_page))


def marks(memory_map: MemoryMap) -> set[str]:
    """Return every accelerator mark."""
    return {mark for view in memory_map for row in view.regions for mark in row.accelerators}


def check_marks(memory_map: MemoryMap, expected: set[str]) -> None:
    """Exactly these marks appear."""
    assert marks(memory_map) == expected, marks(memory_map)


@both
@pytest.mark.rule("MT-15")
def test_mark_of_kvm_is_one_word(dump: Dump, kvm: None) -> None:
    """Under KVM the mark is KVM and nothing else."""
    check_marks(dump.map, {"KVM"})


@pytest.mark.rule("MT-15")
def test_there_are_no_marks_under_tcg(emulated_dump: Dump) -> None:
    """Under TCG no row has a mark."""
    check_marks(emulated_dump.map, set())


@pytest.mark.negative_control("MT-15")
def test_marks_of_another_accelerator_are_noticed(emulated_dump: Dump) -> None:
    """A map made by TCG fails the check for KVM."""
    with must_fail():
        check_marks(emulated_dump.map, {"KVM"})


def check_number_of_marks(memory_map: MemoryMap) -> None:
    """No row has more marks than its view has address spaces that KVM listens to."""
    rows = [
        (len(row.accelerators), sum(space.name in LISTENED for space in view.spaces), row)
        for view in memory_map
        for row in view.regions
    ]
    assert any(number for number, _, _ in rows), "no row has a mark"
    assert not [entry for entry in rows if entry[0] > entry[1]]


@both
@pytest.mark.rule("MT-16")
def test_one_mark_for_each_slot(dump: Dump, kvm: None) -> None:
    """A row has at most one mark for each address space of its view that KVM listens to."""
    check_number_of_marks(dump.map)


@pytest.mark.negative_control("MT-16")
def test_a_mark_too_many_is_noticed(paused_dump: Dump) -> None:
    """A map whose marked rows have three marks fails the check."""

    def thrice(row: Region) -> Region:
        return replace(row, accelerators=("KVM", "KVM", "KVM"))

    with must_fail():
        check_number_of_marks(paused_dump.map.altered(thrice))


def check_marked_views(memory_map: MemoryMap) -> None:
    """Only views of spaces that KVM listens to have marked rows."""
    marked = [v for v in memory_map if any(row.accelerators for row in v.regions)]
    assert marked, "no view has marks"
    assert all(view.names & set(LISTENED) for view in marked), [v.names for v in marked]


@both
@pytest.mark.rule("MT-17")
def test_only_memory_and_smram_have_marks(dump: Dump, kvm: None) -> None:
    """Views of I/O ports, of bus masters and of the IOMMU never carry marks."""
    check_marked_views(dump.map)


@pytest.mark.negative_control("MT-17")
def test_marked_ports_are_noticed(paused_dump: Dump) -> None:
    """A map whose ports are marked fails the check."""

    def marked(row: Region) -> Region:
        return replace(row, accelerators=("KVM",))

    with must_fail():
        check_marked_views(paused_dump.map.altered(marked))


def check_order(memory_map: MemoryMap) -> None:
    """The rows of each view ascend and share no byte."""
    wrong = [
        (one, two)
        for view in memory_map
        for one, two in zip(view.regions, view.regions[1:], strict=False)
        if one.range.last >= two.range.start
    ]
    assert not wrong, wrong[:2]


@both
@pytest.mark.rule("MT-25")
def test_rows_ascend_and_are_disjoint(dump: Dump) -> None:
    """The ranges of one view are ascending and disjoint."""
    check_order(dump.map)


def turned(view: FlatView) -> FlatView:
    """Return the view with its rows in the opposite order."""
    return replace(view, regions=view.regions[::-1])


def stretched(view: FlatView) -> FlatView:
    """Return the view with each row one byte longer."""
    rows = (replace(r, range=AddressRange(r.range.start, r.range.size + 1)) for r in view.regions)
    return replace(view, regions=tuple(rows))


@pytest.mark.parametrize("change", [turned, stretched])
@pytest.mark.negative_control("MT-25")
def test_rows_out_of_order_are_noticed(
    paused_dump: Dump, change: Callable[[FlatView], FlatView]
) -> None:
    """A map whose rows come in another order, or overlap, fails the check."""
    with must_fail():
        check_order(MemoryMap(tuple(map(change, paused_dump.map))))


def check_attribution(memory_map: MemoryMap, nested: Nested) -> None:
    """Equal names are told apart by their owners: one table for each device that has one."""
    tables = [row for row in memory_map.memory.regions if row.name == "msix-table"]
    wanted = sorted(name for name, a in nested.assigned.items() if a.function.msix is not None)
    owners = sorted(row.owner.value for row in tables if row.owner is not None)
    assert len(set(owners)) == len(tables) > 1, owners
    assert set(wanted) <= set(owners), owners


@pytest.mark.rule("MT-26")
def test_names_need_owners(resident_dump: Dump, nested: Nested) -> None:
    """Names are not unique; the owner tells which device a row belongs to."""
    check_attribution(resident_dump.map, nested)


@pytest.mark.negative_control("MT-26")
def test_names_without_owners_are_noticed(nested: Nested) -> None:
    """The map as read without -o attributes nothing."""
    nameless = parse_memory_map(nested.machine.qmp.hmp("info mtree -f"))

    with must_fail():
        check_attribution(nameless, nested)


def empty_views(text: str) -> list[str]:
    """Return the texts of the views that say they are not rendered, or have no root."""
    views = re.split(r"^(?=FlatView #)", text, flags=re.M)
    return [v for v in views if "Root memory region: (none)" in v or "No rendered FlatView" in v]


def check_empty_views(dump: Dump) -> None:
    """Who has no rows is marked as empty, and nobody else."""
    marked = [set(re.findall(r'^ AS "(.*?)", ', v, re.M)) for v in empty_views(dump.flat)]
    found = [set(view.names) for view in dump.map if not view.regions]
    assert found and marked == found, (marked, found)


@both
@pytest.mark.rule("MT-11")
def test_empty_views_are_marked(dump: Dump) -> None:
    """A view without rows says that it has no root or is not rendered; no other view does."""
    check_empty_views(dump)


@pytest.mark.negative_control("MT-11")
def test_an_empty_view_without_marks_is_noticed(paused_dump: Dump) -> None:
    """A text in which the marks of empty views are missing fails the check."""
    text = paused_dump.flat.replace("  No rendered FlatView\n", "").replace("(none)", "nobody")

    with must_fail():
        check_empty_views(replace(paused_dump, flat=text))


def check_shadowed(dump: Dump) -> None:
    """RAM that the chipset made read-only is rom in the flat form, ram in the tree."""
    kinds = {row.kind for row in dump.map.memory.regions if row.name == "pc.ram"}
    own = {node.kind for node in dump.whole.walk() if node.name == "pc.ram" and not node.alias}
    assert (kinds, own) == ({Kind.RAM, Kind.ROM}, {Kind.RAM}), (kinds, own)


@pytest.mark.rule("MT-13")
def test_read_only_ram_is_rom(resident_dump: Dump) -> None:
    """Where firmware shadowed itself in RAM and locked it, the flat form says rom."""
    check_shadowed(resident_dump)


@pytest.mark.negative_control("MT-13")
def test_ram_that_nobody_locked_is_noticed(paused_dump: Dump) -> None:
    """On a machine whose firmware has not run the check fails."""
    with must_fail():
        check_shadowed(paused_dump)


@pytest.mark.rule("ENV-13")
def test_two_starts_give_the_same_map(paused_dump: Dump, paused_again: Machine) -> None:
    """With explicit devices and no defaults, the map of a machine is reproducible."""
    check_same(paused_dump.map, paused_again.memory_map())
