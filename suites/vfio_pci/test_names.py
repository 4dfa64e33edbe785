"""Names of the regions of an assigned function."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest

from harness.lab.assigned import Assigned
from harness.lab.nested import Nested
from harness.model.memory_map import Kind, MemoryMap
from harness.model.memory_tree import MemoryNode, MemoryTree
from harness.testing import must_fail, only

EMULATED = "ssh-nic"
"""An emulated device of the resident machine that has MSI-X too."""


def check_names(assigned: Assigned, prefix: str, found: MemoryMap) -> None:
    """Every row of the device is called ``<prefix> BAR n…``, or is part of MSI-X."""
    rows = (*found.memory.owned_by(assigned.name), *found.ports.owned_by(assigned.name))
    strange = [
        row.name
        for row in rows
        if not row.name.startswith(f"{prefix} BAR ") and row.name not in ("msix-table", "msix-pba")
    ]
    assert rows and not strange, strange


@pytest.mark.rule("NM-03", "NM-01")
def test_names_begin_with_the_address_on_the_host(assigned: Assigned) -> None:
    """Regions are named after the function's address on the host, with its domain."""
    check_names(assigned, str(assigned.function.bdf), assigned.memory_map())


@only("nvme")
@pytest.mark.negative_control("NM-03")
def test_names_of_another_address_are_noticed(assigned: Assigned) -> None:
    """The check fails for names made of the address without its domain."""
    with must_fail():
        check_names(assigned, f"{assigned.function.bdf}".partition(":")[2], assigned.memory_map())


def check_base_bars(assigned: Assigned, tree: MemoryTree, found: MemoryMap) -> None:
    """Each BAR has its wrapper in the tree, where the guest put it, and none in the flat view."""
    wrapped = {w.bar: w.range for w in tree.bar_windows(assigned.name)}
    there = {
        bar: assigned.window(bar)
        for bar in assigned.machine.bar_addresses(assigned.name)
        if bar in {b.index for b in assigned.function.bars}
    }
    assert wrapped == there
    flat = [row.name for view in found for row in view.regions if " base BAR " in row.name]
    assert not flat, flat


@pytest.mark.rule("NM-02")
def test_each_bar_is_wrapped(assigned: Assigned) -> None:
    """``base BAR n`` wraps each BAR in the tree, and never shows in the flat view."""
    check_base_bars(assigned, assigned.machine.memory_tree(), assigned.memory_map())


@pytest.mark.negative_control("NM-02")
def test_bare_wrapper_is_noticed(variants: Mapping[str, Assigned]) -> None:
    """The check fails on a BAR made for the table: its wrapper shows beside the table."""
    nvme = variants["nvme"]

    with must_fail():
        check_base_bars(nvme, nvme.machine.memory_tree(), nvme.memory_map())


def nodes(tree: MemoryTree, owner: str, name: str) -> list[MemoryNode]:
    """Return the nodes called *name* that the device *owner* made, each printed place."""
    return [
        node
        for node in tree.walk()
        if node.name == name and node.owner is not None and node.owner.value == owner
    ]


def check_table_is_child(assigned: Assigned, tree: MemoryTree) -> None:
    """``msix-table`` is a child of ``base BAR n`` and has 16 bytes per vector."""
    msix = assigned.msix
    base = f"{assigned.function.bdf} base BAR {msix.table_bar}"
    tables = [child for node in nodes(tree, assigned.name, base) for child in node.children]
    sizes = {node.range.size for node in tables if node.name == "msix-table"}
    assert sizes == {16 * msix.vectors}, sizes


@only("nvme", "e1000e", "igb")
@pytest.mark.rule("NM-08")
def test_table_is_a_child_of_its_bar(assigned: Assigned) -> None:
    """The MSI-X table is a child of the wrapper of its BAR, of 16 bytes per vector."""
    check_table_is_child(assigned, assigned.machine.memory_tree())


@pytest.mark.negative_control("NM-08")
def test_table_in_another_bar_is_noticed(variants: Mapping[str, Assigned]) -> None:
    """The check fails on a table that was moved to another BAR."""
    with must_fail():
        check_table_is_child(variants["nvme"], variants["nvme"].machine.memory_tree())


def check_pba_is_hidden(tree: MemoryTree, hidden: MemoryTree, owner: str) -> None:
    """The pending bits of *owner* are in the tree only as a disabled region."""
    assert not nodes(tree, owner, "msix-pba")
    all_nodes = nodes(hidden, owner, "msix-pba")
    assert all_nodes and all(node.disabled for node in all_nodes), all_nodes


@only("nvme", "e1000e", "igb")
@pytest.mark.rule("NM-09")
def test_pending_bits_are_disabled(assigned: Assigned) -> None:
    """While no masked vector is pending, ``msix-pba`` is disabled: only ``-D`` shows it."""
    tree = assigned.machine.memory_tree()
    hidden = assigned.machine.memory_tree(disabled=True)

    check_pba_is_hidden(tree, hidden, assigned.name)


@pytest.mark.negative_control("NM-09")
def test_enabled_pending_bits_are_noticed(nested: Nested) -> None:
    """The check fails on an emulated device, whose pending bits are always there."""
    tree = nested.machine.memory_tree()
    hidden = nested.machine.memory_tree(disabled=True)

    with must_fail():
        check_pba_is_hidden(tree, hidden, EMULATED)


def check_unmarked_is_misaligned(nested: Nested, found: MemoryMap) -> int:
    """A ramd row is without a mark exactly if it does not begin and end on pages."""
    page = next(iter(nested.assigned.values())).host.page_size
    rows = [row for row in found.memory.regions if row.kind is Kind.RAMD]
    wrong = [str(row.range) for row in rows if row.in_kvm is not row.range.page_aligned(page)]
    assert rows and not wrong, wrong
    return Counter(row.in_kvm for row in rows)[False]


@pytest.mark.rule("MT-18")
def test_ramd_without_a_mark_is_misaligned(nested: Nested) -> None:
    """A ramd row that KVM has no slot for begins or ends inside a page; there is one."""
    assert check_unmarked_is_misaligned(nested, nested.machine.memory_map()) > 0


@pytest.mark.negative_control("MT-18")
def test_lost_marks_are_noticed(nested: Nested) -> None:
    """The check fails on a map without marks."""
    bare = nested.machine.memory_map().altered(lambda row: replace(row, accelerators=()))

    with must_fail():
        check_unmarked_is_misaligned(nested, bare)
