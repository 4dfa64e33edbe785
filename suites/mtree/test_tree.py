"""The tree form of ``info mtree``: depth, order, headings."""

import re
from collections import Counter
from dataclasses import replace

import pytest

from harness.lab.dump import Dump
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
