"""Devices of every shape that QEMU emulates: their maps, predicted, then found.

The map of each is judged twice: by the oracle, and by rows that were written down by hand.
"""

from dataclasses import replace

import pytest

from harness.host.zoo import ZOO
from harness.lab.nested import Nested
from harness.model.memory_map import Kind, MemoryMap, Region
from harness.model.vfio.mapping import VfioOptions
from harness.testing import must_fail
from suites.vfio_pci.layout import Row, check_layout
from suites.vfio_pci.test_map import check_table_is_trapped


@pytest.fixture
def found(zoo: Nested) -> MemoryMap:
    """The map of the machine that has them all."""
    return zoo.machine.memory_map()


def check_map(zoo: Nested, name: str, found: MemoryMap, options: VfioOptions) -> None:
    """Each row of each BAR is what device, kernel and options imply."""
    expected = replace(zoo.assigned[name], options=options).expectation()
    assert not expected.compare(found), expected.explain(found)


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.rule("MAP-01", "MAP-04", "MAP-28", "NM-01", "NST-22")
def test_map_is_what_the_device_implies(zoo: Nested, found: MemoryMap, name: str) -> None:
    """Every byte of every BAR is mapped or trapped as device, kernel and options imply."""
    check_map(zoo, name, found, VfioOptions())


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.negative_control("MAP-01", "MAP-04", "MAP-28", "NM-01", "NST-22")
def test_a_device_mapped_otherwise_is_noticed(zoo: Nested, found: MemoryMap, name: str) -> None:
    """The map is not the one of a device that may not be mapped."""
    with must_fail():
        check_map(zoo, name, found, VfioOptions(no_mmap=True))


WITH_MSIX = ("nvme-exclusive", "nvme-pages", "xhci", "virtio-rng", "megasas")


@pytest.mark.parametrize("name", WITH_MSIX)
@pytest.mark.rule("MAP-02", "NM-08")
def test_msix_tables_are_trapped(zoo: Nested, found: MemoryMap, name: str) -> None:
    """The table is trapped before any driver is there, wherever and how long it is.

    A guest whose tables are given away loses its interrupts and may never come up: this is seen
    with firmware alone.
    """
    check_table_is_trapped(zoo.assigned[name], found)


@pytest.mark.parametrize("name", WITH_MSIX)
@pytest.mark.negative_control("MAP-02", "NM-08")
def test_tables_given_away_are_noticed(zoo: Nested, found: MemoryMap, name: str) -> None:
    """A map in which mapped is trapped, and trapped is mapped, fails the check."""
    with must_fail():
        check_table_is_trapped(zoo.assigned[name], found.altered(the_other_way))


EXCLUSIVE: list[Row] = [(0x0, 0x1FFF, "ramd", "BAR 0 mmaps[0]", True)]
"""All of it is direct: the table has a BAR of its own."""
EXCLUSIVE_TABLE: list[Row] = [
    (0x0, 0x40F, "i/o", "msix-table", False),
    (0x410, 0xFFF, "ramd", "BAR 4 mmaps[0]", False),
]
PAGES: list[Row] = [
    (0x0000, 0x2FFF, "ramd", "BAR 0 mmaps[0]", True),
    (0x3000, 0x500F, "i/o", "msix-table", False),
    (0x5010, 0x7FFF, "ramd", "BAR 0 mmaps[0]", False),
]
"""513 vectors: the table lies on three pages, the last of them mixed."""
XHCI: list[Row] = [
    (0x0000, 0x2FFF, "ramd", "BAR 0 mmaps[0]", True),
    (0x3000, 0x30FF, "i/o", "msix-table", False),
    (0x3100, 0x3FFF, "ramd", "BAR 0 mmaps[0]", False),
]
"""Doorbells at 0x2000 are direct; pending bits at 0x3800 share the table's page."""
VIRTIO_TABLE: list[Row] = [
    (0x0, 0x1F, "i/o", "msix-table", False),
    (0x20, 0xFFF, "ramd", "BAR 1 mmaps[0]", False),
]
"""One mixed page, no slot of KVM: also the pending bits at 0x800 trap."""
VIRTIO: list[Row] = [(0x0, 0x3FFF, "ramd", "BAR 4 mmaps[0]", True)]
TESTDEV: list[Row] = [(0x0, 0xFFF, "ramd", "BAR 0 mmaps[0]", True)]
TESTDEV_MEMORY: list[Row] = [(0x0, 0xFF_FFFF, "ramd", "BAR 2 mmaps[0]", True)]
IVSHMEM: list[Row] = [(0x0, 0xFFF, "ramd", "BAR 0 mmaps[0]", True)]
"""256 bytes, alone on their page in the host and in the guest: the page is given."""
IVSHMEM_MEMORY: list[Row] = [(0x0, 0xF_FFFF, "ramd", "BAR 2 mmaps[0]", True)]
RTL8139: list[Row] = [(0x0, 0xFFF, "ramd", "BAR 1 mmaps[0]", True)]
"""256 bytes, like ivshmem; no window of a quirk, which other chips of the maker have."""
AHCI: list[Row] = [(0x0, 0xFFF, "ramd", "BAR 5 mmaps[0]", True)]
MEGASAS: list[Row] = [
    (0x0000, 0x1FFF, "ramd", "BAR 1 mmaps[0]", True),
    (0x2000, 0x20EF, "i/o", "msix-table", False),
    (0x20F0, 0x3FFF, "ramd", "BAR 1 mmaps[0]", False),
]
MEGASAS_QUEUES: list[Row] = [(0x0, 0x3_FFFF, "ramd", "BAR 3 mmaps[0]", True)]

ROWS: list[tuple[str, str, int, list[Row]]] = [
    ("NST-06", "nvme-exclusive", 0, EXCLUSIVE),
    ("NST-06", "nvme-exclusive", 4, EXCLUSIVE_TABLE),
    ("NST-07", "nvme-pages", 0, PAGES),
    ("NST-08", "xhci", 0, XHCI),
    ("NST-10", "virtio-rng", 1, VIRTIO_TABLE),
    ("NST-11", "virtio-rng", 4, VIRTIO),
    ("NST-13", "testdev", 0, TESTDEV),
    ("NST-13", "testdev", 2, TESTDEV_MEMORY),
    ("NST-14", "ivshmem", 0, IVSHMEM),
    ("NST-14", "ivshmem", 2, IVSHMEM_MEMORY),
    ("NST-15", "rtl8139", 1, RTL8139),
    ("NST-16", "ahci", 5, AHCI),
    ("NST-17", "megasas", 1, MEGASAS),
    ("NST-17", "megasas", 3, MEGASAS_QUEUES),
]
NAMES = [f"{name}-bar{bar}" for _, name, bar, _ in ROWS]
KNOWN = [
    pytest.param(*rest, id=id, marks=pytest.mark.rule(rule))
    for id, (rule, *rest) in zip(NAMES, ROWS, strict=True)
]
CONTROLS = [
    pytest.param(*rest, id=id, marks=pytest.mark.negative_control(rule))
    for id, (rule, *rest) in zip(NAMES, ROWS, strict=True)
]


@pytest.mark.parametrize(("name", "bar", "rows"), KNOWN)
def test_layout_is_the_known_one(
    zoo: Nested, found: MemoryMap, name: str, bar: int, rows: list[Row]
) -> None:
    """The rows of the BAR are those that the device model is known to lead to."""
    check_layout(zoo.assigned[name], bar, rows, found)


def the_other_way(row: Region) -> Region:
    """Return the row trapped if it is mapped, and mapped if it is trapped."""
    other = {Kind.RAMD: Kind.IO, Kind.IO: Kind.RAMD}
    return replace(row, kind=other.get(row.kind, row.kind))


@pytest.mark.parametrize(("name", "bar", "rows"), CONTROLS)
def test_the_other_way_is_noticed(
    zoo: Nested, found: MemoryMap, name: str, bar: int, rows: list[Row]
) -> None:
    """A map in which mapped is trapped, and trapped is mapped, fails the check."""
    with must_fail():
        check_layout(zoo.assigned[name], bar, rows, found.altered(the_other_way))


def check_ports_trap(zoo: Nested, name: str, bar: int, found: MemoryMap) -> None:
    """Every port of the BAR is trapped, in the space of ports."""
    rows = found.ports.covering(zoo.assigned[name].window(bar))
    assert rows and all(row.kind is Kind.IO and row.owned_by(name) for row in rows), rows


PORTS = [("testdev", 1), ("rtl8139", 0), ("ahci", 4), ("megasas", 0), ("lsi", 0)]


@pytest.mark.parametrize(("name", "bar"), PORTS)
@pytest.mark.rule("MAP-11", "NST-13", "NST-16")
def test_ports_trap(zoo: Nested, found: MemoryMap, name: str, bar: int) -> None:
    """A BAR of I/O ports is trapped wholly: ports cannot be mapped."""
    check_ports_trap(zoo, name, bar, found)


@pytest.mark.negative_control("MAP-11", "NST-13", "NST-16")
def test_memory_is_no_ports(zoo: Nested, found: MemoryMap) -> None:
    """Ports that a map has as RAM of the device fail the check."""
    with must_fail():
        check_ports_trap(zoo, "testdev", 1, found.altered(the_other_way))
