"""Pages of every shape of device that QEMU emulates: who serves them, predicted and counted.

All of them are read, and where that harms nobody written.

With KVM the exits of the vCPU are counted beside QEMU's traces; without, there are only these.
"""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from harness.lab.assigned import Assigned
from harness.lab.shape_host import ShapeMachine
from harness.model.address import AddressRange
from harness.model.memory_map import Kind, MemoryMap
from harness.model.places import places_by_class
from harness.model.trap import TrapClass
from harness.testing import must_fail

pytestmark = [pytest.mark.full]

COUNT = 40
"""Accesses of each word."""
VALUE = 0x5A5A_5A58
"""What is written: also the address of a message, whose low two bits are clear."""
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


def check_written(zoo: ShapeMachine, name: str, bar: int, found: MemoryMap) -> None:
    """The same for writes."""
    places = places_of(zoo.assigned[name], bar, found)
    writes = {
        served: zoo.writes(f"{name} BAR {bar}: {', '.join(map(hex, where))}", VALUE, *where,
                           count=COUNT)
        for served, where in places.items()
    }  # fmt: skip
    wrong = [
        f"{k.value} expected: {w.explain()}" for k, w in writes.items() if w.served_by is not k
    ]
    assert places and not wrong, "\n".join(wrong)


by_host = pytest.mark.parametrize("bare_zoo", ["host"], indirect=True, scope="session")
unmapped = pytest.mark.parametrize("bare_zoo", ["unmapped"], indirect=True, scope="session")
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


# -- written ----------------------------------------------------------------------------------


WRITABLE = [("testdev", 2), ("ivshmem", 2), ("virtio-rng", 1)]
"""BARs where any write is harmless: nothing at all, memory, and a table of MSI-X that is off,
with nothing beside it."""


@by_host
@pytest.mark.parametrize(("name", "bar"), WRITABLE)
@pytest.mark.rule("TRP-09", "TRP-07")
def test_writes_are_served_as_the_map_says(bare_zoo: ShapeMachine, name: str, bar: int) -> None:
    """A write to a direct page leaves neither exit nor trace, one to a trapped page both."""
    check_written(bare_zoo, name, bar, bare_zoo.map)


@unmapped
@pytest.mark.parametrize(("name", "bar"), WRITABLE)
@pytest.mark.rule("TRP-09", "TRP-07")
def test_every_write_to_an_unmapped_device_is_trapped(
    bare_zoo: ShapeMachine, name: str, bar: int
) -> None:
    """With x-no-mmap the same writes are all seen by QEMU."""
    assert TrapClass.DIRECT not in places_of(bare_zoo.assigned[name], bar, bare_zoo.map)

    check_written(bare_zoo, name, bar, bare_zoo.map)


@by_tcg
@pytest.mark.parametrize(("name", "bar"), WRITABLE[1:])
@pytest.mark.rule("TRP-10", "TRP-09")
def test_without_kvm_the_traces_of_writes_say_the_same(
    bare_zoo: ShapeMachine, name: str, bar: int
) -> None:
    """Under TCG a write to a direct page leaves no trace, one to any other page its own."""
    check_written(bare_zoo, name, bar, bare_zoo.map)


@by_host
@pytest.mark.parametrize(
    ("name", "bar", "lost"), [("virtio-rng", 1, "msix-table"), ("ivshmem", 2, "mmaps")]
)
@pytest.mark.negative_control("TRP-09", "TRP-07")
def test_wrong_prediction_of_writes_is_noticed(
    bare_zoo: ShapeMachine, name: str, bar: int, lost: str
) -> None:
    """The check fails for a map from which rows were taken."""
    less = bare_zoo.map.altered(lambda row: None if lost in row.name else row)

    with must_fail():
        check_written(bare_zoo, name, bar, less)


@unmapped
@pytest.mark.negative_control("TRP-09", "TRP-07")
def test_writes_that_are_trapped_after_all_are_noticed(bare_zoo: ShapeMachine) -> None:
    """The check fails for a map that takes an unmapped device for a mapped one."""
    mapped = bare_zoo.map.altered(lambda row: replace(row, kind=Kind.RAMD))

    with must_fail():
        check_written(bare_zoo, "ivshmem", 2, mapped)


@by_tcg
@pytest.mark.negative_control("TRP-10")
def test_wrong_prediction_of_writes_is_noticed_without_kvm(bare_zoo: ShapeMachine) -> None:
    """The check of writes fails on a lost row when traces are all there is, too."""
    less = bare_zoo.map.altered(lambda row: None if row.name == "msix-table" else row)

    with must_fail():
        check_written(bare_zoo, "virtio-rng", 1, less)


def check_holds(zoo: ShapeMachine, address: int, value: int) -> None:
    """QEMU reads this value there, by its own mapping."""
    found = zoo.qtest.read(address)
    assert found == value, f"{found:#x} at {address:#x}, not {value:#x}"


@by_host
@pytest.mark.rule("TRP-09")
@pytest.mark.negative_control("TRP-09")
def test_what_is_written_past_qemu_arrives(bare_zoo: ShapeMachine) -> None:
    """That nothing is traced of a write does not mean that there was none."""
    address = places_of(bare_zoo.assigned["ivshmem"], 2, bare_zoo.map)[TrapClass.DIRECT][0]
    bare_zoo.reader.write(address, VALUE ^ 1)
    with must_fail():
        check_holds(bare_zoo, address, VALUE)

    bare_zoo.reader.write(address, VALUE)

    check_holds(bare_zoo, address, VALUE)
