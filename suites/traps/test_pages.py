"""Pages of every shape of device that QEMU emulates: who serves them, predicted and counted.

With KVM the exits of the vCPU are counted beside QEMU's traces; without, there are only these.
"""

from collections.abc import Mapping

import pytest

from harness.lab.assigned import Assigned
from harness.lab.shape_host import ShapeMachine
from harness.model.address import AddressRange
from harness.model.memory_map import MemoryMap
from harness.model.places import places_by_class
from harness.model.trap import TrapClass
from harness.testing import must_fail

pytestmark = [pytest.mark.full]

COUNT = 40
"""Reads of each word."""
QUIET = 0xF8
"""Offset in a page of a register, if at all, that does nothing when it is read."""

BARS = [
    ("nvme-exclusive", 0),
    ("nvme-exclusive", 4),
    ("nvme-pages", 0),
    ("xhci", 0),
    ("virtio-rng", 1),
    ("virtio-rng", 4),
    ("testdev", 0),
    ("testdev", 2),
    ("ivshmem", 0),
    ("ivshmem", 2),
    ("rtl8139", 1),
    ("ahci", 5),
    ("megasas", 1),
    ("megasas", 3),
    ("lsi", 1),
    ("lsi", 2),
]
"""Every memory BAR of the zoo."""


def places_of(assigned: Assigned, bar: int, found: MemoryMap) -> Mapping[TrapClass, list[int]]:
    """Return addresses of words on the pages of a BAR, by the class that *found* predicts."""
    window, page = assigned.window(bar), assigned.host.page_size
    pages = AddressRange.of(window.start, window.end + -window.end % page)
    places = places_by_class(found.memory, pages, in_page=QUIET, page=page)
    return {served: [window.start + o for o in offsets] for served, offsets in places.items()}


def check_served(zoo: ShapeMachine, name: str, bar: int, found: MemoryMap) -> None:
    """What *found* predicts for each sampled page of the BAR is what is counted there."""
    places = places_of(zoo.assigned[name], bar, found)
    reads = {
        served: zoo.reads(f"{name} BAR {bar}: {', '.join(map(hex, where))}", *where, count=COUNT)
        for served, where in places.items()
    }
    wrong = [
        f"{k.value} expected: {r.explain()}" for k, r in reads.items() if r.served_by is not k
    ]
    assert places and not wrong, "\n".join(wrong)


by_host = pytest.mark.parametrize("bare_zoo", ["host"], indirect=True, scope="session")
by_tcg = pytest.mark.parametrize("bare_zoo", ["tcg"], indirect=True, scope="session")


@by_host
def test_every_memory_bar_is_here(bare_zoo: ShapeMachine) -> None:
    """No memory BAR of the zoo is missing among those that are read."""
    there = [
        (name, bar.index)
        for name, assigned in bare_zoo.assigned.items()
        for bar in assigned.function.bars
        if bar.is_memory
    ]
    assert sorted(there) == sorted(BARS)


@by_host
@pytest.mark.parametrize(("name", "bar"), BARS)
@pytest.mark.rule("TRP-09", "TRP-07")
def test_pages_are_served_as_the_map_says(bare_zoo: ShapeMachine, name: str, bar: int) -> None:
    """Each page of a device is direct or trapped as the map of its machine says."""
    check_served(bare_zoo, name, bar, bare_zoo.map)


WITHOUT_KVM = [("nvme-pages", 0), ("xhci", 0), ("virtio-rng", 1), ("testdev", 2), ("lsi", 1)]
"""A BAR of each kind: with a table on pages of its own, on a mixed page, without a table."""


@by_tcg
@pytest.mark.parametrize(("name", "bar"), WITHOUT_KVM)
@pytest.mark.rule("TRP-10", "TRP-09")
def test_without_kvm_the_traces_say_the_same(bare_zoo: ShapeMachine, name: str, bar: int) -> None:
    """Under TCG there are no exits: a direct page leaves no trace, any other page its own."""
    check_served(bare_zoo, name, bar, bare_zoo.map)


LOST = [("nvme-pages", 0, "msix-table"), ("xhci", 0, "mmaps"), ("megasas", 3, "mmaps")]


@by_host
@pytest.mark.parametrize(("name", "bar", "lost"), LOST)
@pytest.mark.negative_control("TRP-09", "TRP-07")
def test_wrong_prediction_is_noticed(
    bare_zoo: ShapeMachine, name: str, bar: int, lost: str
) -> None:
    """The check fails for a map from which rows were taken."""
    less = bare_zoo.map.altered(lambda row: None if lost in row.name else row)

    with must_fail():
        check_served(bare_zoo, name, bar, less)


@by_tcg
@pytest.mark.parametrize(("name", "bar", "lost"), LOST)
@pytest.mark.negative_control("TRP-10")
def test_wrong_prediction_is_noticed_without_kvm(
    bare_zoo: ShapeMachine, name: str, bar: int, lost: str
) -> None:
    """So it does when traces are all there is."""
    less = bare_zoo.map.altered(lambda row: None if lost in row.name else row)

    with must_fail():
        check_served(bare_zoo, name, bar, less)
