"""BARs smaller than a page."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import pytest

from harness.device.spec import BarSpec
from harness.model.memory_map import MemoryMap
from harness.model.memory_tree import MemoryNode, MemoryTree
from harness.model.pci import BarKind
from harness.shapes.named.bench import Guest, NamedBench
from harness.shapes.named.catalogue import NAMED
from harness.testing import must_fail
from suites.named_shapes.conftest import ServeToQemu

PAGE: Final = 4096


def base_of(tree: MemoryTree, seated_prefix: str, bar: int) -> MemoryNode:
    """Return the container of a BAR."""
    name = f"{seated_prefix} base BAR {bar}"
    return next(node for node in tree.walk() if node.name == name)


def check_fills_its_page(tree: MemoryTree, prefix: str, bar: int) -> None:
    """Container, BAR and mapping have a page, and the container gives way (priority 0)."""
    base = base_of(tree, prefix, bar)
    sizes = {node.name.removeprefix(f"{prefix} "): node.range.size for node in base.walk()}
    expected = (f"base BAR {bar}", f"BAR {bar}", f"BAR {bar} mmaps[0]")
    assert sizes == dict.fromkeys(expected, PAGE), sizes
    assert base.priority == 0


@pytest.fixture
def small(serve_to_qemu: ServeToQemu) -> NamedBench:
    """The device with BARs of 256 bytes and 1 KiB, the second at the end of a page."""
    return serve_to_qemu(
        Guest("small", NAMED["small"].device(), at={0: 0xA0000000, 1: 0xA0001C00})
    )


@pytest.mark.rule("MAP-16")
def test_small_bar_on_a_page_fills_it(small: NamedBench) -> None:
    """A mapped BAR of 256 bytes that begins a page is as large as the page in the tree."""
    check_fills_its_page(small.machine.memory_tree(), small["small"].prefix, 0)


@pytest.mark.negative_control("MAP-16")
def test_small_bar_inside_a_page_is_noticed(small: NamedBench) -> None:
    """The check fails on a BAR that begins inside a page: it keeps its size and priority."""
    with must_fail():
        check_fills_its_page(small.machine.memory_tree(), small["small"].prefix, 1)


def check_neighbour_wins(machine: NamedBench, found: MemoryMap) -> None:
    """A BAR of another device in the page of a small one answers where it is."""
    window = machine["neighbour"].window(1)
    rows = found.memory.covering(window)
    assert {row.owner.value for row in rows if row.owner} == {"neighbour"}, rows


NEIGHBOURS: Final[Mapping[str, dict[int, int]]] = {
    "small": {0: 0xA0000000, 1: 0xA0002000},
    "neighbour": {0: 0xA0004000, 1: 0xA0000C00},
}


@pytest.mark.rule("MAP-16")
def test_neighbour_in_the_page_wins(serve_to_qemu: ServeToQemu) -> None:
    """In the rest of its page a small BAR leaves the place to other devices."""
    guests = [Guest(n, NAMED["small"].device(), at=at) for n, at in NEIGHBOURS.items()]
    machine = serve_to_qemu(*guests)

    check_neighbour_wins(machine, machine.map)


@pytest.mark.negative_control("MAP-16")
def test_covered_neighbour_is_noticed(serve_to_qemu: ServeToQemu) -> None:
    """The check fails where a BAR of a whole page came over the neighbour later."""
    shape = replace(NAMED["small"], bars=(BarSpec(0, BarKind.MEM32, PAGE, direct=True),))
    late = Guest("late", shape.device(), at={0: 0xA0000000})
    neighbour = Guest("neighbour", NAMED["small"].device(), at=NEIGHBOURS["neighbour"])
    machine = serve_to_qemu(neighbour, late)

    with must_fail():
        check_neighbour_wins(machine, machine.map)
