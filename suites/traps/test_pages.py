"""Pages of every shape of device that QEMU emulates: who serves them, predicted and counted.

All of them are read, and where that harms nobody written.

With KVM the exits of the vCPU are counted beside QEMU's traces; without, there are only these.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from harness.lab.accesses import Accesses
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
WRITABLE = [("testdev", 2), ("ivshmem", 2), ("virtio-rng", 1)]
"""BARs where any write is harmless: nothing at all, memory, and a table of MSI-X that is off,
with nothing beside it."""


def read(zoo: ShapeMachine, where: str, words: Sequence[int]) -> Accesses:
    """Let the vCPU read each of *words*, and count what happens."""
    return zoo.reads(where, *words, count=COUNT)


def write(zoo: ShapeMachine, where: str, words: Sequence[int]) -> Accesses:
    """Let the vCPU write each of *words*, and count what happens."""
    return zoo.writes(where, VALUE, *words, count=COUNT)


Touch = Callable[[ShapeMachine, str, Sequence[int]], Accesses]
"""`read` or `write`; the text says where, in messages."""


def places_of(assigned: Assigned, bar: int, found: MemoryMap) -> Mapping[TrapClass, list[int]]:
    """Return addresses of words on the pages of a BAR, by the class that *found* predicts."""
    window, page = assigned.window(bar), assigned.host.page_size
    pages = AddressRange.of(window.start, window.end + -window.end % page)
    places = places_by_class(found.memory, pages, in_page=QUIET, page=page)
    return {served: [window.start + o for o in offsets] for served, offsets in places.items()}


def check_served(
    zoo: ShapeMachine, name: str, bar: int, found: MemoryMap, touch: Touch = read
) -> None:
    """What *found* predicts for each sampled page of the BAR is what is counted there."""
    places = places_of(zoo.assigned[name], bar, found)
    counted = {
        served: touch(zoo, f"{name} BAR {bar}: {', '.join(map(hex, where))}", where)
        for served, where in places.items()
    }
    wrong = [
        f"{served.value} expected: {accesses.explain()}"
        for served, accesses in counted.items()
        if accesses.served_by is not served
    ]
    assert places and not wrong, "\n".join(wrong)


by_host = pytest.mark.parametrize("bare_zoo", ["host"], indirect=True, scope="session")
unmapped = pytest.mark.parametrize("bare_zoo", ["unmapped"], indirect=True, scope="session")
by_tcg = pytest.mark.parametrize("bare_zoo", ["tcg"], indirect=True, scope="session")


# -- as the host runs machines: with KVM, where it has that -----------------------------------


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
@pytest.mark.parametrize(
    ("name", "bar", "touch"),
    [*((*each, read) for each in BARS), *((*each, write) for each in WRITABLE)],
)
@pytest.mark.rule("TRP-09", "TRP-07")
def test_pages_are_served_as_the_map_says(
    bare_zoo: ShapeMachine, name: str, bar: int, touch: Touch
) -> None:
    """Each page of a device is direct or trapped as the map of its machine says.

    An access to a direct page leaves neither exit nor trace, one to a trapped page both.
    """
    check_served(bare_zoo, name, bar, bare_zoo.map, touch)


WRONG = [
    ("nvme-pages", 0, read, "msix-table"),
    ("xhci", 0, read, "mmaps"),
    ("megasas", 3, read, "mmaps"),
    ("virtio-rng", 1, write, "msix-table"),
    ("ivshmem", 2, write, "mmaps"),
]
"""BARs, how they are touched, and rows that the map has lost."""

from_wrong_maps = pytest.mark.parametrize(("name", "bar", "touch", "lost"), WRONG)


@by_host
@from_wrong_maps
@pytest.mark.negative_control("TRP-09", "TRP-07")
def test_wrong_prediction_is_noticed(
    bare_zoo: ShapeMachine, name: str, bar: int, touch: Touch, lost: str
) -> None:
    """The check fails for a map from which rows were taken."""
    less = bare_zoo.map.without(lost)

    with must_fail():
        check_served(bare_zoo, name, bar, less, touch)


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


# -- without KVM ------------------------------------------------------------------------------


WITHOUT_KVM = [
    ("nvme-pages", 0, read),
    ("xhci", 0, read),
    ("virtio-rng", 1, read),
    ("testdev", 2, read),
    ("lsi", 1, read),
    ("ivshmem", 2, write),
    ("virtio-rng", 1, write),
]
"""A BAR of each kind: with a table on pages of its own, on a mixed page, without a table."""


@by_tcg
@pytest.mark.parametrize(("name", "bar", "touch"), WITHOUT_KVM)
@pytest.mark.rule("TRP-10", "TRP-09")
def test_without_kvm_the_traces_say_the_same(
    bare_zoo: ShapeMachine, name: str, bar: int, touch: Touch
) -> None:
    """Under TCG there are no exits: a direct page leaves no trace, any other page its own."""
    check_served(bare_zoo, name, bar, bare_zoo.map, touch)


@by_tcg
@from_wrong_maps
@pytest.mark.negative_control("TRP-10")
def test_wrong_prediction_is_noticed_without_kvm(
    bare_zoo: ShapeMachine, name: str, bar: int, touch: Touch, lost: str
) -> None:
    """The check fails when traces are all there is, too."""
    less = bare_zoo.map.without(lost)

    with must_fail():
        check_served(bare_zoo, name, bar, less, touch)


# -- with x-no-mmap ---------------------------------------------------------------------------


@unmapped
@pytest.mark.parametrize(("name", "bar"), WRITABLE)
@pytest.mark.rule("TRP-09", "TRP-07")
def test_every_write_to_an_unmapped_device_is_trapped(
    bare_zoo: ShapeMachine, name: str, bar: int
) -> None:
    """With x-no-mmap the same writes are all seen by QEMU."""
    assert TrapClass.DIRECT not in places_of(bare_zoo.assigned[name], bar, bare_zoo.map)

    check_served(bare_zoo, name, bar, bare_zoo.map, write)


@unmapped
@pytest.mark.negative_control("TRP-09", "TRP-07")
def test_writes_that_are_trapped_after_all_are_noticed(bare_zoo: ShapeMachine) -> None:
    """The check fails for a map that takes an unmapped device for a mapped one."""
    mapped = bare_zoo.map.altered(lambda row: replace(row, kind=Kind.RAMD))

    with must_fail():
        check_served(bare_zoo, "ivshmem", 2, mapped, write)
