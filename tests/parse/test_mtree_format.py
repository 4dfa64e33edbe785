"""What is printed reads back the same, however hostile the names are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.model.address import AddressRange
from harness.model.memory_map import AddressSpace, FlatView, Kind, MemoryMap, Owner, Region
from harness.model.memory_tree import Alias, MemoryNode, MemoryTree, TreeBlock
from harness.parse.mtree import parse_memory_map, parse_memory_tree, parse_mtree
from harness.parse.mtree_format import format_memory_map, format_memory_tree

ALPHABET = "ab0 @#[](){}/:.,\"'-KVM"
NAMES = st.text(ALPHABET, max_size=12) | st.sampled_from(
    [
        "vfio-vga-mmio@0xa0000",
        "usb3 port #1",
        "0000:03:00.0 BAR 3 mmaps[0]",
        "bcm2835-gpu-ram-alias[*]",
        "vfio[0000:03:00.0].rom",
        "owner:{dev id=x}",
        "KVM",
        "alias",
        "(prio 0, ram): x",
    ]
)
OWNERS = st.none() | st.builds(
    Owner,
    st.sampled_from(["dev", "obj"]),
    st.sampled_from(["id", "path", "type"]),
    st.text("a0/[]. #@", max_size=8),
)
KINDS = st.sampled_from([kind for kind in Kind if kind is not Kind.UNKNOWN])
WORDS = st.sampled_from(["ram-new", "guard", "RW"])


def ends_like_syntax(name: str) -> bool:
    """Say whether a reader must take the end of the name for something else."""
    return name == "KVM" or name.endswith((" KVM", "owner:{dev id=x}"))


@st.composite
def regions(draw: st.DrawFn, start: int) -> Region:
    known = draw(st.booleans())
    owner, parent = draw(OWNERS), draw(OWNERS)
    return Region(
        range=AddressRange(start, draw(st.integers(1, 0x3000))),
        kind=draw(KINDS) if known else Kind.UNKNOWN,
        name=draw(NAMES),
        offset=draw(st.sampled_from([0, 0x810, 0xB90090])),
        priority=draw(st.integers(-1000, 4096)),
        nonvolatile=draw(st.booleans()),
        owner=owner,
        parent=parent,
        orphan=owner is None and parent is None and draw(st.booleans()),
        accelerators=tuple(draw(st.lists(st.sampled_from(["KVM", "kvm", "kvm:tcg"]), max_size=2))),
        word="" if known else draw(WORDS),
    )


@st.composite
def views(draw: st.DrawFn) -> FlatView:
    rows: list[Region] = []
    for _ in range(draw(st.integers(0, 4))):
        gap = draw(st.integers(0, 0x2000))
        rows.append(draw(regions(gap + (rows[-1].range.end if rows else 0))))
    spaces = st.builds(AddressSpace, NAMES, NAMES, st.none() | NAMES)
    return FlatView(
        tuple(draw(st.lists(spaces, max_size=3))), draw(st.none() | NAMES), tuple(rows)
    )


@given(st.lists(views(), min_size=1, max_size=3))
def test_a_map_that_prints_reads_back_the_same(drawn: list[FlatView]) -> None:
    memory_map = MemoryMap(tuple(drawn))
    try:
        text = format_memory_map(memory_map)
    except ValueError:
        assume(False)

    assert parse_memory_map(text) == memory_map


@given(regions(0x1000).filter(lambda row: not ends_like_syntax(row.name)))
def test_a_row_prints_unless_its_name_ends_like_syntax(row: Region) -> None:
    memory_map = MemoryMap((FlatView((AddressSpace("memory", "a"),), "a", (row,)),))

    assert parse_memory_map(format_memory_map(memory_map)) == memory_map


@pytest.mark.parametrize(
    "row",
    [
        Region(AddressRange(0, 1), Kind.RAM, "pc.ram KVM"),
        Region(AddressRange(0, 1), Kind.RAM, "a owner:{dev id=x}"),
        Region(AddressRange(0, 1), Kind.RAM, "a @0000000000001000"),
        Region(AddressRange(0, 1), Kind.RAM, "two\nlines"),
        Region(AddressRange(0, 1), Kind.UNKNOWN, "no word"),
        Region(AddressRange(0, 1 << 65), Kind.RAM, "beyond the last address"),
    ],
    ids=lambda row: row.name,
)
def test_a_row_that_would_read_back_as_another_is_refused(row: Region) -> None:
    with pytest.raises(ValueError, match=r"does not read back|cannot be printed"):
        format_memory_map(MemoryMap((FlatView((), "system", (row,)),)))


def test_a_map_without_views_prints_nothing() -> None:
    assert format_memory_map(MemoryMap(())) == ""


def test_the_text_is_that_of_the_newest_qemu() -> None:
    row = Region(
        AddressRange(0x48_0004_0000, 0x8000),
        Kind.RAMD,
        "0000:03:00.0 BAR 0 mmaps[0]",
        offset=0x1000,
        owner=Owner("dev", "id", "nvme0"),
        accelerators=("KVM",),
    )
    view = FlatView((AddressSpace("memory", "system", "ram"),), "system", (row,))

    assert format_memory_map(MemoryMap((view, FlatView((), None, ())))) == (
        "FlatView #0\n"
        ' AS "memory", root: system, alias ram\n'
        " Root memory region: system\n"
        "  0000004800040000-0000004800047fff (prio 0, ramd): 0000:03:00.0 BAR 0 mmaps[0]"
        " @0000000000001000 owner:{dev id=nvme0} KVM\n"
        "\n"
        "FlatView #1\n"
        " Root memory region: (none)\n"
        "  No rendered FlatView\n"
        "\n"
    )


@st.composite
def nodes(draw: st.DrawFn, depth: int = 0) -> MemoryNode:
    children = draw(st.lists(nodes(depth + 1), max_size=2)) if depth < 3 else []
    span = st.builds(AddressRange, st.integers(0, 1 << 63), st.integers(1, 1 << 63))
    return MemoryNode(
        range=draw(span),
        kind=draw(KINDS),
        name=draw(NAMES),
        priority=draw(st.integers(-1000, 4096)),
        nonvolatile=draw(st.booleans()),
        alias=draw(st.none() | st.builds(Alias, NAMES, span)),
        disabled=draw(st.booleans()),
        overflow=draw(st.integers(0, 2)),
        owner=draw(OWNERS),
        children=tuple(children),
    )


@given(st.lists(st.tuples(NAMES, nodes()), min_size=1, max_size=3))
def test_a_tree_that_prints_reads_back_the_same(drawn: list[tuple[str, MemoryNode]]) -> None:
    tree = MemoryTree(tuple(TreeBlock((), name, (node,)) for name, node in drawn))
    try:
        text = format_memory_tree(tree)
    except ValueError:
        assume(False)

    assert parse_memory_tree(text) == tree


def test_a_region_past_the_last_address_prints_wrapped() -> None:
    node = MemoryNode(AddressRange((1 << 64) - 0x1000, 0x2000), Kind.IO, "a", overflow=1)
    tree = MemoryTree((TreeBlock(("memory",), None, (node,)),))

    text = format_memory_tree(tree)

    assert "[DETECTED OVERFLOW!]   fffffffffffff000-0000000000000fff (prio 0, i/o): a" in text
    assert parse_memory_tree(text) == tree


def test_a_name_of_two_lines_in_the_tree_is_refused() -> None:
    node = MemoryNode(AddressRange(0, 1), Kind.IO, "two\nlines")

    with pytest.raises(ValueError, match="cannot be printed"):
        format_memory_tree(MemoryTree((TreeBlock((), "a", (node,)),)))


def test_a_deep_tree_needs_no_deep_stack() -> None:
    node = MemoryNode(AddressRange(0, 1), Kind.IO, "leaf")
    for level in range(3000):
        node = replace(node, name=f"level {level}", children=(node,))
    text = "memory-region: a\n" + "".join(
        f"{'  ' * (n + 1)}0000000000000000-0000000000000000 (prio 0, i/o): {item.name}\n"
        for n, item in enumerate(node.walk())
    )

    tree = parse_mtree(text).tree

    assert tree is not None
    assert sum(1 for _ in tree.walk()) == 3001
