"""The tree form of ``info mtree``: depth, order, headings."""

import re
from collections import Counter
from dataclasses import replace

import pytest

from harness.host.host import Host
from harness.lab.dump import Dump
from harness.model.memory_map import Kind, MemoryMap
from harness.model.memory_tree import MemoryNode, MemoryTree
from harness.testing import must_fail

both = pytest.mark.parametrize("dump", ["paused", "resident"], indirect=True)


def enabled_lines(text: str) -> Counter[str]:
    """Return the trees of address spaces as text, without the lines of disabled regions."""
    blocks = [block for block in text.split("\n\n") if block.startswith("address-space: ")]
    return Counter(re.sub(r"^.* \[disabled\].*$\n?", "", f"{b}\n", flags=re.M) for b in blocks)


def check_hidden(shown: str, whole: str) -> None:
    """What is shown is what is enabled, at the depth that it has when nothing is hidden."""
    left, right = enabled_lines(shown), enabled_lines(whole)
    assert left == right, [*(left - right), *(right - left)][:2]


@both
@pytest.mark.rule("MT-20")
def test_children_of_hidden_regions_keep_their_depth(dump: Dump) -> None:
    """Enabled regions below a hidden one are printed at their own depth."""
    check_hidden(dump.tree, dump.whole_tree)


@pytest.mark.negative_control("MT-20")
def test_children_pulled_up_are_noticed(paused_dump: Dump) -> None:
    """A text that prints the children of a hidden region one level higher fails the check."""
    pulled_up = re.sub(r"^  (    .*: alias vtd-ir )", r"\1", paused_dump.tree, flags=re.M)

    with must_fail():
        check_hidden(pulled_up, paused_dump.whole_tree)


def check_siblings(tree: MemoryTree) -> None:
    """Siblings come by address, then by higher priority first."""
    wrong = [
        (one.name, two.name)
        for node in tree.walk()
        for one, two in zip(node.children, node.children[1:], strict=False)
        if (one.range.start, -one.priority) > (two.range.start, -two.priority)
    ]
    assert not wrong, wrong[:3]


@both
@pytest.mark.rule("MT-22")
def test_siblings_come_by_address_and_priority(dump: Dump) -> None:
    """Siblings are sorted by address, then by higher priority first."""
    check_siblings(dump.whole)


def by_priority_alone(node: MemoryNode) -> MemoryNode:
    """Return the node with the children of equal address in the opposite order."""
    children = sorted(node.children, key=lambda c: (c.range.start, c.priority))
    return replace(node, children=tuple(map(by_priority_alone, children)))


@pytest.mark.negative_control("MT-22")
def test_low_priority_first_is_noticed(paused_dump: Dump) -> None:
    """A tree whose siblings of equal address begin with the lowest priority fails."""
    blocks = (
        replace(block, roots=tuple(map(by_priority_alone, block.roots)))
        for block in paused_dump.whole.blocks
    )

    with must_fail():
        check_siblings(MemoryTree(tuple(blocks)))


def check_shared(tree: MemoryTree) -> None:
    """One tree is printed for all address spaces that have the same root."""
    block = tree.space("memory")
    assert len(block.spaces) > 1, block.spaces
    assert sum("memory" in other.spaces for other in tree.blocks) == 1


@both
@pytest.mark.rule("MT-24")
def test_spaces_with_one_root_share_a_tree(dump: Dump) -> None:
    """Several address-space lines may precede one tree."""
    check_shared(dump.shown)


@pytest.mark.negative_control("MT-24")
def test_a_tree_for_each_space_is_noticed(paused_dump: Dump) -> None:
    """A dump that repeats the tree for each space, as before QEMU 7.0, fails the check."""
    blocks = (
        replace(block, spaces=(space,))
        for block in paused_dump.shown.blocks
        for space in block.spaces
    )

    with must_fail():
        check_shared(MemoryTree(tuple(blocks)))


CLOSED = ("pci_bridge_mem", "pci_bridge_pref_mem", "tseg-window")
"""Windows that have no byte before firmware opens them: of root ports, of SMM's memory."""


def check_closed_windows(tree: MemoryTree, found: MemoryMap) -> None:
    """Closed windows print as one byte, and the flat form has none of them."""
    closed = [n.alias.target for n in tree.walk() if n.alias and n.name in CLOSED]
    sizes = {n.range.size for n in tree.walk() if n.name in CLOSED}
    assert closed and sizes == {1}, sizes
    rows = [row for row in found.memory.regions if row.range.size == 1 and row.name in closed]
    assert not rows, rows


@pytest.mark.rule("MT-02")
def test_an_empty_region_prints_as_one_byte(paused_dump: Dump) -> None:
    """A region of size 0 prints end = start in the tree; the flat form has no such row."""
    check_closed_windows(paused_dump.whole, paused_dump.map)


@pytest.mark.negative_control("MT-02")
def test_windows_that_firmware_opened_are_noticed(resident_dump: Dump) -> None:
    """On a machine whose firmware opened the windows of its root ports the check fails."""
    with must_fail():
        check_closed_windows(resident_dump.whole, resident_dump.map)


def check_roots(tree: MemoryTree, expected: Kind) -> None:
    """The roots of guest memory and of ports have the expected type."""
    roots = [root for space in ("memory", "I/O") for root in tree.space(space).roots]
    found = {root.name: root.kind for root in roots}
    assert found == {"system": expected, "io": expected}, found


@both
@pytest.mark.rule("MT-04")
def test_roots_are_containers(dump: Dump, host: Host) -> None:
    """From QEMU 11.0 on a root that holds others is a container, before it is i/o."""
    # Feature probe is impossible: the word is all there is to see.
    check_roots(dump.shown, Kind.CONTAINER if host.qemu.version.has(11, 0) else Kind.IO)


@pytest.mark.negative_control("MT-04")
def test_a_root_of_another_type_is_noticed(paused_dump: Dump) -> None:
    """A root that were RAM fails the check."""
    with must_fail():
        check_roots(paused_dump.shown, Kind.RAM)


def check_hides_disabled(tree: MemoryTree) -> None:
    """No disabled region is among what is shown."""
    disabled = [node.name for node in tree.walk() if node.disabled]
    assert not disabled, disabled[:5]


@both
@pytest.mark.rule("MT-19")
def test_disabled_regions_are_hidden_unless_asked_for(dump: Dump) -> None:
    """Since QEMU 5.1 disabled regions are shown only with -D."""
    check_hides_disabled(dump.shown)


@pytest.mark.negative_control("MT-19")
def test_disabled_regions_are_noticed(paused_dump: Dump) -> None:
    """What -D shows fails the check."""
    with must_fail():
        check_hides_disabled(paused_dump.whole)


def check_sound(tree: MemoryTree) -> None:
    """No region runs past the last address."""
    wrong = [node.name for node in tree.walk() if node.overflow]
    assert not wrong, wrong


@both
@pytest.mark.rule("MT-21")
def test_no_region_overflows(dump: Dump) -> None:
    """No line of any machine here is marked as an overflow, hidden regions included."""
    check_sound(dump.shown)
    check_sound(dump.whole)


@pytest.mark.parametrize("mark", ["[DETECTED OVERFLOW!] ", "[DETECTED OVERFLOW!] " * 2])
@pytest.mark.negative_control("MT-21")
def test_an_overflow_is_noticed(paused_dump: Dump, mark: str) -> None:
    """A text with the mark in front of a line, or glued to the next one, fails the check."""
    text = re.sub(r"^(?= +[0-9a-f]{16}-.*: system )", mark, paused_dump.tree, count=1, flags=re.M)

    with must_fail():
        check_sound(replace(paused_dump, tree=text).shown)


def check_alias_types(tree: MemoryTree) -> None:
    """An alias of a region whose name is unique has the region's type."""
    real: dict[str, set[Kind]] = {}
    for node in tree.walk():
        if node.alias is None:
            real.setdefault(node.name, set()).add(node.kind)
    shown = [
        (node.kind, kinds, node.name)
        for node in tree.walk()
        if node.alias and len(kinds := real.get(node.alias.target, set())) == 1
    ]
    assert any(Kind.RAM in kinds for _, kinds, _ in shown), "no alias of RAM"
    wrong = [entry for entry in shown if entry[0] not in entry[1]]
    assert not wrong, wrong[:3]


@both
@pytest.mark.rule("MT-23")
def test_an_alias_has_the_type_of_its_target(dump: Dump) -> None:
    """An alias prints the type of what it shows, since QEMU 5.0."""
    check_alias_types(dump.whole)


@pytest.mark.negative_control("MT-23")
def test_aliases_with_a_type_of_their_own_are_noticed(paused_dump: Dump) -> None:
    """A text whose aliases are i/o, as before 5.0, fails the check."""
    text = re.sub(r", \S+\): alias ", ", i/o): alias ", paused_dump.whole_tree)

    with must_fail():
        check_alias_types(replace(paused_dump, whole_tree=text).whole)
