"""Address spaces of devices below intel-iommu while translation is off."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from harness.lab.vtd import Observed
from harness.machine.vtd import ALONE
from harness.model.address import AddressRange
from harness.model.memory_map import FlatView, Kind, MemoryMap
from harness.model.memory_tree import MemoryNode, MemoryTree, TreeBlock
from harness.model.vtd.config import VtdConfig
from harness.model.vtd.expected import Irqchip
from harness.testing import must_fail
from suites.intel_iommu.conftest import Observe

INTERRUPTS = AddressRange(0xFEE00000, 0x100000)
BASE = VtdConfig.of(Irqchip.SPLIT, caching_mode=True)
NONE = VtdConfig(present=False)

EACH = pytest.mark.parametrize(
    "config",
    [
        VtdConfig.of(irqchip, caching_mode=caching_mode)
        for irqchip in (Irqchip.SPLIT, Irqchip.ON)
        for caching_mode in (False, True)
    ],
    ids=lambda config: config.label,
)


def roots_of(memory_map: MemoryMap) -> Counter[str]:
    """Count the roots of the address spaces that intel-iommu made."""
    return Counter(
        space.root for view in memory_map for space in view.spaces if space.name == "vtd-root"
    )


def vtd_views(memory_map: MemoryMap) -> list[FlatView]:
    """Return the views that devices below intel-iommu share."""
    return [view for view in memory_map if "vtd-root" in view.names]


def vtd_blocks(tree: MemoryTree) -> list[TreeBlock]:
    """Return the trees of the address spaces that intel-iommu made."""
    return [block for block in tree.blocks if "vtd-root" in block.spaces]


def check_a_space_for_each_function(observed: Observed, roots: Counter[str]) -> None:
    """Each function has an address space whose root is called by slot and function alone."""
    expected = {f"vtd-{slot}": count for slot, count in observed.slots.items()}
    assert roots == expected
    assert roots["vtd-00.0"] > 1, "no slot is on two buses here: nothing to see"


@EACH
@pytest.mark.rule("VTD-38", "VTD-43")
def test_each_function_has_its_space(observe: Observe, config: VtdConfig) -> None:
    """Each function has an address space vtd-DD.F; equal slots of several buses share a name."""
    observed = observe(config)

    check_a_space_for_each_function(observed, roots_of(observed.memory_map))


@pytest.mark.negative_control("VTD-38")
def test_functions_without_a_space_are_noticed(observe: Observe) -> None:
    """A machine without an intel-iommu fails the check."""
    observed = observe(NONE)

    with must_fail():
        check_a_space_for_each_function(observed, roots_of(observed.memory_map))


@pytest.mark.negative_control("VTD-43")
def test_names_with_a_bus_are_noticed(observe: Observe) -> None:
    """Roots whose names tell the buses apart fail the check."""
    observed = observe(BASE)
    named = Counter(
        f"vtd-{bus:02x}:{root.removeprefix('vtd-')}"
        for root, count in roots_of(observed.memory_map).items()
        for bus in range(count)
    )

    with must_fail():
        check_a_space_for_each_function(observed, named)


def check_untranslated(memory_map: MemoryMap) -> None:
    """All share one view of what the processor sees, and its RAM carries no mark of KVM."""
    views = vtd_views(memory_map)
    assert [view.root for view in views] == ["vtd-nodmar"]
    ram = [row for row in views[0].regions if row.kind is Kind.RAM]
    assert ram, views[0]
    assert not [row for row in ram if row.in_kvm], ram
    seen = [row for row in memory_map.memory.regions if row.kind is Kind.RAM]
    assert {row.name for row in ram} <= {row.name for row in seen}


@EACH
@pytest.mark.rule("VTD-39")
def test_functions_share_the_untranslated_view(observe: Observe, config: VtdConfig) -> None:
    """While translation is off, all devices share the view vtd-nodmar; its RAM is not KVM's."""
    check_untranslated(observe(config).memory_map)


@pytest.mark.negative_control("VTD-39")
def test_a_machine_without_that_view_is_noticed(observe: Observe) -> None:
    """A machine without an intel-iommu fails the check, and so do marks of KVM."""
    found = observe(BASE).memory_map

    with must_fail():
        check_untranslated(observe(NONE).memory_map)
    with must_fail():
        check_untranslated(found.altered(lambda row: replace(row, accelerators=("KVM",))))


def check_interrupt_window(memory_map: MemoryMap) -> None:
    """In every view that intel-iommu made, vtd-ir answers in fee00000 to feefffff."""
    views = vtd_views(memory_map)
    assert views
    for view in views:
        rows = [(row.name, row.kind, row.range) for row in view.covering(INTERRUPTS)]
        assert rows == [("vtd-ir", Kind.IO, INTERRUPTS)], view.spaces


@EACH
@pytest.mark.rule("VTD-41")
def test_interrupt_window_is_cut_out(observe: Observe, config: VtdConfig) -> None:
    """Writes of devices to the interrupt window reach the remapping hardware, not memory."""
    check_interrupt_window(observe(config).memory_map)


@pytest.mark.negative_control("VTD-41")
def test_a_missing_interrupt_window_is_noticed(observe: Observe) -> None:
    """Views without the row fail the check."""
    without = observe(BASE).memory_map.altered(lambda row: row if row.name != "vtd-ir" else None)

    with must_fail():
        check_interrupt_window(without)


def nodes(block: TreeBlock, name: str) -> list[MemoryNode]:
    """Return the nodes of *block* called *name*."""
    return [node for node in block.walk() if node.name == name]


def check_compatibility_window(tree: MemoryTree) -> None:
    """Every tree has one vtd-no-ir over the interrupt window, of priority 2, disabled."""
    blocks = vtd_blocks(tree)
    assert blocks
    for block in blocks:
        found = [(n.range, n.priority, n.disabled) for n in nodes(block, "vtd-no-ir")]
        assert found == [(INTERRUPTS, 2, True)], block.spaces


@EACH
@pytest.mark.rule("VTD-42")
def test_fault_window_sleeps(observe: Observe, config: VtdConfig) -> None:
    """The region for interrupts that must fault exists and is disabled."""
    check_compatibility_window(observe(config).tree)


@pytest.mark.negative_control("VTD-42")
def test_a_fault_window_that_is_awake_is_noticed(observe: Observe) -> None:
    """A tree where it is enabled fails the check."""
    with must_fail():
        check_compatibility_window(enabled(observe(BASE).tree, "vtd-no-ir"))


def enabled(tree: MemoryTree, name: str) -> MemoryTree:
    """Return a synthetic tree in which the nodes called *name* are enabled."""

    def change(node: MemoryNode) -> MemoryNode:
        return replace(
            node,
            disabled=node.disabled and node.name != name,
            children=tuple(change(child) for child in node.children),
        )

    return MemoryTree(
        tuple(replace(b, roots=tuple(change(root) for root in b.roots)) for b in tree.blocks)
    )


def check_bus_master(memory_map: MemoryMap, *, on: bool) -> None:
    """The function's own space shows nothing, or what its space below intel-iommu shows."""
    view = memory_map.view(ALONE.driver)
    assert (view.root, "vtd-root" in view.names) == (("vtd-nodmar", True) if on else (None, False))


@EACH
@pytest.mark.rule("VTD-44")
def test_bus_master_opens_the_space(observe: Observe, config: VtdConfig) -> None:
    """A function may reach memory only while its bus master bit is set, not before or after."""
    observed = observe(config)

    check_bus_master(observed.memory_map, on=False)
    check_bus_master(observed.map_as_master, on=True)
    check_bus_master(observed.map_released, on=False)


@pytest.mark.negative_control("VTD-44")
@pytest.mark.parametrize("on", [False, True])
def test_bus_master_the_other_way_is_noticed(observe: Observe, on: bool) -> None:
    """Maps of the two states, exchanged, fail the check."""
    observed = observe(BASE)
    exchanged = {False: observed.map_as_master, True: observed.memory_map}

    with must_fail():
        check_bus_master(exchanged[on], on=on)
