"""The grammar of ``info mtree``, rule by rule, and texts that break it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ParseError
from harness.model.address import AddressRange
from harness.model.dispatch import PhysicalSection
from harness.model.memory_map import Kind, Owner, Region
from harness.model.memory_tree import MemoryNode
from harness.parse.mtree import (
    Dialect,
    OptionRefused,
    parse_memory_map,
    parse_memory_tree,
    parse_mtree,
    parse_mtree_session,
)

SAMPLES = sorted((Path(__file__).parents[1] / "samples" / "mtree").glob("*.txt"))
ROW = "0000000000001000-0000000000001fff (prio 0, ramd): "


def one_row(body: str) -> Region:
    text = f"FlatView #0\n Root memory region: system\n  {ROW}{body}\n"
    (row,) = parse_memory_map(text).views[0].regions
    return row


def one_node(body: str) -> MemoryNode:
    (node,) = parse_memory_tree(f"memory-region: x\n  {ROW}{body}\n").walk()
    return node


@pytest.mark.parametrize(
    ("body", "name", "offset", "marks"),
    [
        ("pc.ram", "pc.ram", 0, ()),
        ("", "", 0, ()),
        ("pc.ram @0000000000b90090", "pc.ram", 0xB90090, ()),
        ("pc.ram @0000000000b90090 KVM", "pc.ram", 0xB90090, ("KVM",)),
        ("pc.ram KVM KVM", "pc.ram", 0, ("KVM", "KVM")),
        ("pc.ram kvm:tcg", "pc.ram", 0, ("kvm:tcg",)),
        ("pc.ram xen:kvm", "pc.ram", 0, ("xen:kvm",)),
        ("vfio-vga-mmio@0xa0000", "vfio-vga-mmio@0xa0000", 0, ()),
        ("usb3 port #1", "usb3 port #1", 0, ()),
        ("a (b) [c] {d} KVM2", "a (b) [c] {d} KVM2", 0, ()),
        ("pc.ram @00000000000b9009", "pc.ram", 0xB9009, ()),
        ("pc.ram @b9009", "pc.ram @b9009", 0, ()),
        ("alias a @b 0000", "alias a @b 0000", 0, ()),
    ],
)
def test_a_flat_row_is_read_from_both_ends(
    body: str, name: str, offset: int, marks: tuple[str, ...]
) -> None:
    row = one_row(body)

    assert (row.name, row.offset, row.accelerators) == (name, offset, marks)
    assert (row.kind, row.range) == (Kind.RAMD, AddressRange(0x1000, 0x1000))


@pytest.mark.parametrize(
    ("body", "owner", "parent", "orphan"),
    [
        ("a owner:{dev id=nvme0}", Owner("dev", "id", "nvme0"), None, False),
        (
            "a owner:{dev path=/machine/q35} parent:{obj type=container} KVM",
            Owner("dev", "path", "/machine/q35"),
            Owner("obj", "type", "container"),
            False,
        ),
        ("a parent:{obj path=/machine}", None, Owner("obj", "path", "/machine"), False),
        ("a orphan", None, None, True),
        ("a orphan KVM", None, None, True),
        ("a @0000000000001000 orphan KVM", None, None, True),
    ],
)
def test_owner_and_parent_stand_before_the_mark(
    body: str, owner: Owner | None, parent: Owner | None, orphan: bool
) -> None:
    row = one_row(body)

    assert (row.name, row.owner, row.parent, row.orphan) == ("a", owner, parent, orphan)


def test_words_behind_an_owner_are_kept_and_named_in_a_warning() -> None:
    text = f"FlatView #0\n  {ROW}a owner:{{dev id=x}} HVF KVM\n"

    dump = parse_mtree(text)

    assert dump.map is not None
    assert dump.map.views[0].regions[0].accelerators == ("HVF", "KVM")
    assert dump.warnings == ("line 2: unknown word 'HVF' behind the row",)


def test_an_unknown_type_word_is_kept_and_named_in_a_warning() -> None:
    dump = parse_mtree(f"FlatView #0\n  {ROW.replace('ramd', 'nv-guard')}a\n")

    assert dump.map is not None
    (row,) = dump.map.views[0].regions
    assert (row.kind, row.word, row.nonvolatile) == (Kind.UNKNOWN, "guard", True)
    assert not row.kind.is_direct
    assert dump.warnings == ("line 2: unknown type word 'guard'",)


def test_an_unknown_type_word_and_word_of_the_tree_are_kept_too() -> None:
    dump = parse_mtree(
        f"memory-region: a\n  {ROW.replace('ramd', 'guard')}a owner:{{dev id=x}} new\n"
    )

    assert dump.tree is not None
    (node,) = dump.tree.walk()
    assert (node.word, node.trailing, node.name) == ("guard", ("new",), "a")
    assert len(dump.warnings) == 2


def test_rows_out_of_order_are_a_warning() -> None:
    low = "  0000000000000000-0000000000000fff (prio 0, ram): low\n"

    dump = parse_mtree(f"FlatView #0\n  {ROW}a\n{low}")

    assert dump.warnings == ("line 3: the row does not lie above the one before it",)


def test_an_alias_names_its_target_and_the_part_of_it() -> None:
    node = one_node("alias smram @pc ram 00000000000a0000-00000000000bffff [disabled] orphan")

    assert node.name == "smram"
    assert node.alias is not None
    assert (node.alias.target, node.alias.range) == ("pc ram", AddressRange(0xA0000, 0x20000))
    assert (node.disabled, node.orphan) == (True, True)


def test_children_of_a_hidden_region_hang_below_the_last_shown_one() -> None:
    text = (
        "address-space: memory\n"
        "  0000000000000000-000000000000ffff (prio 0, i/o): system\n"
        "      0000000000000000-0000000000000fff (prio 0, i/o): jumped\n"
        "    0000000000002000-0000000000002fff (prio -1, i/o): back\n"
    )

    (system,) = parse_memory_tree(text).space("memory").roots

    assert [child.name for child in system.children] == ["jumped", "back"]
    assert system.children[1].priority == -1


def test_an_address_space_without_any_region_is_a_block_of_its_own() -> None:
    text = (
        "address-space: off\n\naddress-space: a\naddress-space: b\n"
        "  0000000000000000-000000000000ffff (prio 0, i/o): io\n"
    )

    tree = parse_memory_tree(text)

    assert [block.spaces for block in tree.blocks] == [("off",), ("a", "b")]


@pytest.mark.parametrize("before", ["", "  "])
def test_an_overflow_is_marked_and_its_range_runs_past_the_last_address(before: str) -> None:
    text = (
        "memory-region: a\n"
        f"{before}[DETECTED OVERFLOW!]   fffffffffffff000-0000000000000fff (prio 0, i/o): a\n"
    ).replace("!]   f", "!] f" if before else "!]   f")

    dump = parse_mtree(text)

    assert dump.tree is not None
    (node,) = dump.tree.walk()
    assert node.overflow == 1
    assert node.range == AddressRange((1 << 64) - 0x1000, 0x2000)
    assert dump.warnings == ("line 2: overflow",)


def test_the_overflow_of_a_hidden_last_region_stands_alone() -> None:
    dump = parse_mtree(f"memory-region: a\n  {ROW}a\n[DETECTED OVERFLOW!] \n")

    assert dump.warnings == ("line 3: overflow of a region that is not shown",)


def test_the_first_qemu_printed_no_type_and_bare_headings() -> None:
    text = (
        "(qemu) info mtree\nmemory\n"
        "0000000000000000-7ffffffffffffffe (prio 0): system\n"
        "  0000000000000000-0000000007ffffff (prio 0): alias ram @pc.ram "
        "0000000000000000-0000000007ffffff\n"
        "I/O\n0000000000000000-000000000000ffff (prio 0): io\n"
        "aliases\npc.ram\n0000000000000000-0000000007ffffff (prio 0): pc.ram\n(qemu) "
    )

    dump = parse_mtree(text)

    assert dump.dialect is Dialect.TREE_PLAIN
    assert dump.tree is not None
    assert [(block.spaces, block.region) for block in dump.tree.blocks] == [
        (("memory",), None),
        (("I/O",), None),
        ((), "pc.ram"),
    ]
    assert {(node.kind, node.word) for node in dump.tree.walk()} == {(Kind.UNKNOWN, "")}


def test_a_bare_name_is_no_heading_where_types_are_printed() -> None:
    with pytest.raises(ParseError, match="line 3: not a line of info mtree"):
        parse_mtree(f"memory-region: a\n  {ROW}a\nmemory\n  {ROW}b\n")


DISPATCH = """FlatView #0
 AS "memory", root: system
 Root memory region: system
  00000000fe7c2000-00000000fe7c240f (prio 0, i/o): msix-table
  Dispatch
    Physical sections
      #0 @0000000000000000..ffffffffffffffff (noname) [unassigned]
      #5 @00000000fe7c2000..00000000fe7c2fff (noname) [MRU]
      #6 @00000000fe7c2000..00000000fe7c240f system [ROOT] [iommu] alias=pc.ram
    Nodes (9 bits per level, 6 levels) ptr=[3] skip=4
      [0]
\t  0       skip=3  ptr=[3]
\t  1..511  skip=1  ptr=NIL
\t  4       skip=0  ptr=#5

FlatView #1
 Root memory region: (none)
  No rendered FlatView

"""


def test_the_dispatch_tree_is_kept_beside_its_view() -> None:
    dump = parse_mtree(DISPATCH)

    first, second = dump.dispatches
    assert second is None
    assert first is not None
    assert [section.index for section in first.subpages] == [0, 5]
    assert first.sections[2] == PhysicalSection(
        6, 0xFE7C2000, 0xFE7C240F, "system", ("ROOT", "iommu"), "pc.ram"
    )
    assert dump.map is not None
    assert len(dump.map.memory.regions) == 1


def test_a_damaged_line_of_the_dispatch_tree_is_refused() -> None:
    with pytest.raises(ParseError, match="line 8: not a line of a dispatch tree"):
        parse_mtree(DISPATCH.replace("#5 @00000000fe7c2000", "#5 @fe7c2000"))


def test_the_oldest_flat_form_names_empty_spaces() -> None:
    text = (
        "address-space (flat view): e1000\n"
        "  No rendered FlatView for address space 'e1000'\n\n"
        f"address-space (flat view): memory\n  {ROW}a\n\n"
    )

    dump = parse_mtree(text)

    assert dump.dialect is Dialect.FLAT_SPACES
    assert dump.map is not None
    assert dump.map.view("e1000").regions == ()
    assert [row.name for row in dump.map.memory.regions] == ["a"]


@pytest.mark.parametrize("option", ["o", "f", "D", "z"])
def test_a_refused_option_is_told_apart_so_that_the_caller_can_ask_again(option: str) -> None:
    text = f'mtree: unsupported option -{option}\r\nTry "help info mtree" for more information\r\n'

    with pytest.raises(OptionRefused) as caught:
        parse_mtree(text)

    assert caught.value.option == option
    assert f"next: ask again without -{option}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no output of 'info mtree'"),
        ("hello\nworld\n", "no output of 'info mtree'"),
        ("(qemu) info qtree\nbus: main-system-bus\n", "no output of 'info mtree'"),
        ("FlatView #2\n  0000000fe000000-0000000fe7fffff (prio 0, ramd): x\n", "line 2: not a"),
        ("  0000000fe000000-0000000fe7fffff (prio 0, ramd): x\n", "line 1: not a line"),
        ("FlatView #0\n  00000000FE000000-00000000FE000FFF (prio 0, ram): x\n", "line 2: not"),
        ("FlatView #0\n  0000000000002000-0000000000001000 (prio 0, ram): x\n", "line 2: not"),
        (f"FlatView #0\n  {ROW}a\nwhat is this\n", "line 3: not a line of info mtree -f"),
        (f'FlatView #0\n  {ROW}a\n AS "a", root: b\n', "line 3: an address space behind"),
        ("FlatView #0\n Root memory region: a\n Root memory region: b\n", "line 3: a second"),
        (f"FlatView #0\n  No rendered FlatView\n  {ROW}a\n", "line 3: a row in a view that is"),
        (f"FlatView #0\n  {ROW}a\n  No rendered FlatView\n", "line 3: a view that has rows and"),
        ("address-space: a\nFlatView #0\n", "both forms of info mtree in one answer"),
        (f"memory-region: a\n  {ROW}a\n?\n", "line 3: not a line of info mtree"),
    ],
)
def test_a_text_that_breaks_the_grammar_is_refused_with_its_line(text: str, said: str) -> None:
    with pytest.raises(ParseError, match=re.escape(said)):
        parse_mtree(text)


def test_the_error_names_the_source_and_holds_the_line() -> None:
    with pytest.raises(ParseError) as caught:
        parse_mtree("FlatView #0\nbad line\n", where="host7.txt")

    assert (caught.value.where, caught.value.text) == ("host7.txt, line 2", "bad line")


def test_asking_for_the_other_form_says_which_command_gives_it() -> None:
    with pytest.raises(ParseError, match="use 'info mtree -f'"):
        parse_memory_map(f"memory-region: a\n  {ROW}a\n")
    with pytest.raises(ParseError, match="without -f"):
        parse_memory_tree("FlatView #0\n")


def test_the_echo_decides_the_form_of_rows_without_headings() -> None:
    assert parse_mtree(f"(qemu) info mtree -f -o\n  {ROW}a\n").dialect is Dialect.FLAT
    assert parse_mtree(f"(qemu) info mtree -D\n  {ROW}a\n").dialect is Dialect.TREE


def test_output_of_other_commands_in_the_session_is_left_out() -> None:
    text = (
        f"(qemu) info version\n10.0.2\n(qemu) info mtree\nmemory-region: a\n  {ROW}a\n(qemu) q\n"
    )

    assert len(parse_mtree_session(text)) == 1


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_mtree_session(text)
    except ParseError as error:
        assert error.where


PIECES = st.sampled_from(
    [
        "FlatView #1\n", ' AS "memory", root: system\n', " Root memory region: (none)\n",
        "  No rendered FlatView\n", "  Dispatch\n", "    Physical sections\n", "aliases\n",
        "address-space: a\n", "memory-region: a\n", "(qemu) info mtree -f\n", "\n", "\t", "  ",
        "[DETECTED OVERFLOW!] ", "0000000000000000-ffffffffffffffff (prio -1, i/o): x",
        "ffffffffffffffff-0000000000000000 (prio 0, RW): alias a @b ", " [disabled]", " orphan",
        " owner:{dev id=a}", " parent:{obj path=/}", " @0000000000000010", " KVM", "\r\n", "}",
        "0000000000000000-0000000000000000", " (prio 0): y\n",
    ]
)  # fmt: skip


@given(st.lists(PIECES, max_size=30).map("".join))
def test_any_pile_of_pieces_is_read_or_refused(text: str) -> None:
    try:
        parse_mtree_session(text)
    except ParseError as error:
        assert error.where


@given(st.data())
def test_any_damaged_sample_is_read_or_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(SAMPLES)).read_text(encoding="utf-8")[:6000]
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 80))
        text = text[:at] + data.draw(st.one_of(PIECES, st.text(max_size=5))) + text[at + cut :]
    try:
        parse_mtree_session(text)
    except ParseError as error:
        assert error.where
