"""Who serves an access of the guest, counted."""

import pytest

from harness.lab.accesses import Accesses, counting
from harness.lab.assigned import Assigned
from harness.model.memory_map import MemoryMap
from harness.model.places import places_by_class
from harness.model.trap import TrapClass
from harness.testing import must_fail, only
from suites.vfio_pci.registers import HARMLESS, PORT_REGISTER

BARS = [(name, bar) for name, bars in HARMLESS.items() for bar in bars]


def check_class(reads: Accesses, expected: TrapClass) -> None:
    """The reads were served by the expected path, all of them, and by no other."""
    assert reads.served_by is expected, reads.explain()


# -- the classes, one by one ------------------------------------------------------------------


@only("nvme")
@pytest.mark.rule("TRP-06", "TRP-02", "MAP-02", "TRP-07")
def test_reads_of_the_msix_table_reach_qemu(assigned: Assigned) -> None:
    """Each read of the MSI-X table exits and is served by QEMU's emulated table."""
    reads = assigned.read(assigned.msix.table_bar, assigned.msix.table_offset)

    check_class(reads, TrapClass.TABLE)


@only("nvme")
@pytest.mark.negative_control("TRP-06", "TRP-02", "TRP-03", "MAP-05", "TRP-07", "TRP-11")
@pytest.mark.parametrize("expected", [TrapClass.TABLE, TrapClass.RAM_DEVICE, TrapClass.SLOW])
def test_direct_reads_are_not_taken_for_trapped(assigned: Assigned, expected: TrapClass) -> None:
    """The check fails on reads of the page behind the table, which are direct."""
    reads = assigned.read(0, 0x3000)

    with must_fail():
        check_class(reads, expected)


@only("nvme", "edu")
@pytest.mark.rule("TRP-01", "TRP-07", "MAP-01")
def test_reads_of_a_mapped_page_are_direct(assigned: Assigned) -> None:
    """Reads of a page wholly covered by one ramd row leave no trace and cause no exit."""
    reads = assigned.read(0, HARMLESS[assigned.name][0])

    check_class(reads, TrapClass.DIRECT)


@only("nvme")
@pytest.mark.negative_control("TRP-01", "MAP-05")
def test_trapped_reads_are_not_taken_for_direct(assigned: Assigned) -> None:
    """The check fails on reads of the MSI-X table."""
    reads = assigned.read(assigned.msix.table_bar, assigned.msix.table_offset)

    with must_fail():
        check_class(reads, TrapClass.DIRECT)


@only("nvme")
@pytest.mark.parametrize("offset", [0x2410, 0x2800, 0x2FFC])
@pytest.mark.rule("MAP-05", "TRP-03", "TRP-07")
def test_rest_of_the_tables_page_traps(assigned: Assigned, offset: int) -> None:
    """Behind the table its own page exits on each access, served by QEMU's mapping."""
    check_class(assigned.read(0, offset), TrapClass.RAM_DEVICE)


@only("nvme")
@pytest.mark.rule("MAP-05")
def test_page_behind_the_tables_page_is_direct(assigned: Assigned) -> None:
    """The next whole page of the same row is direct, although the row has no mark."""
    check_class(assigned.read(0, 0x3000), TrapClass.DIRECT)


@only("e1000e", "igb")
@pytest.mark.rule("MAP-11", "TRP-07")
def test_ports_are_served_through_the_kernel(assigned: Assigned) -> None:
    """Each read of a port reaches QEMU, which reads the device through the kernel."""
    bar, offset = PORT_REGISTER[assigned.name]

    check_class(assigned.read_port(bar, offset), TrapClass.SLOW)


@only("e1000e")
@pytest.mark.negative_control("MAP-11")
def test_memory_is_not_taken_for_ports(assigned: Assigned) -> None:
    """The check fails on the register of a mapped BAR."""
    reads = assigned.read(0, HARMLESS["e1000e"][0])

    with must_fail():
        check_class(reads, TrapClass.SLOW)


# -- configuration space ----------------------------------------------------------------------


def check_each_is_seen(reads: Accesses) -> None:
    """QEMU read configuration space once per access."""
    assert reads.count <= reads.events.get("vfio_pci_read_config", 0) <= 1.05 * reads.count, (
        reads.events
    )


@pytest.mark.parametrize("offset", [0x00, 0x2C], ids=hex)
@pytest.mark.rule("MAP-12")
def test_configuration_space_traps(assigned: Assigned, offset: int) -> None:
    """Each read of configuration space reaches QEMU."""
    check_each_is_seen(assigned.read_config(offset, count=100))


@only("nvme")
@pytest.mark.negative_control("MAP-12")
def test_reads_of_memory_are_no_configuration_reads(assigned: Assigned) -> None:
    """The check fails on reads of a BAR."""
    reads = assigned.read(0, 0x3000, count=100)

    with must_fail():
        check_each_is_seen(reads)


# -- every page -------------------------------------------------------------------------------


def check_page_classes(assigned: Assigned, bar: int, found: MemoryMap) -> None:
    """What *found* predicts for each sampled page is what is counted there."""
    places = places_by_class(
        found.memory,
        assigned.window(bar),
        in_page=HARMLESS[assigned.name][bar],
        page=assigned.host.page_size,
    )
    reads = {served: assigned.read(bar, *o, count=60) for served, o in places.items()}
    wrong = [f"{k.value}: {r.explain()}" for k, r in reads.items() if r.served_by is not k]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("assigned", "bar"), BARS, indirect=["assigned"])
@pytest.mark.rule("TRP-09", "TRP-07", "TRP-16")
def test_pages_are_served_as_the_map_says(assigned: Assigned, bar: int) -> None:
    """Each page is direct or trapped as the map says, and the map stays the same meanwhile."""
    before = assigned.memory_map()

    check_page_classes(assigned, bar, before)

    check_same(before, assigned.memory_map())


@only("nvme")
@pytest.mark.negative_control("TRP-09", "TRP-07")
@pytest.mark.parametrize("lost", ["msix-table", "mmaps"])
def test_wrong_prediction_is_noticed(assigned: Assigned, lost: str) -> None:
    """The check fails for a map from which rows were taken."""
    less = assigned.memory_map().without(lost)

    with must_fail():
        check_page_classes(assigned, 0, less)


def check_same(before: MemoryMap, after: MemoryMap) -> None:
    """Guest memory is mapped as before."""
    assert after.memory.regions == before.memory.regions


@only("edu")
@pytest.mark.negative_control("TRP-16")
def test_changed_map_is_noticed(assigned: Assigned) -> None:
    """The check fails when a BAR went away meanwhile."""
    before = assigned.memory_map()

    with assigned.decoding_off():
        after = assigned.memory_map()

    with must_fail():
        check_same(before, after)


# -- what the counts rest on ------------------------------------------------------------------


@only("nvme")
@pytest.mark.rule("TRP-11")
def test_exits_are_counted(assigned: Assigned) -> None:
    """``mmio_exits`` of ``query-stats`` grows by one for each access known to trap."""
    few, many = (assigned.read(0, 0x2000, count=count) for count in (100, 400))

    assert few.exits is not None and many.exits is not None, "KVM does not run the guest"
    check_class(few, TrapClass.TABLE)
    check_class(many, TrapClass.TABLE)
    assert 285 <= many.exits - few.exits <= 315, (few.explain(), many.explain())


def check_silent(events: dict[str, int]) -> None:
    """No read of a vfio device or of an MSI-X table was traced."""
    loud = {name: n for name, n in events.items() if name.startswith(("vfio_", "memory_region_r"))}
    assert not loud and "memory_region_ops_read:msix-table" not in events, events


@only("nvme")
@pytest.mark.rule("TRP-15")
def test_idle_guest_is_silent(assigned: Assigned) -> None:
    """While the guest does nothing with its devices, no access is counted."""
    with counting(assigned.machine) as counts:
        assigned.os.run(["sleep", "1"])

    check_silent(counts.events)


@only("nvme")
@pytest.mark.negative_control("TRP-15")
def test_noise_is_noticed(assigned: Assigned) -> None:
    """The check fails when one access is made."""
    reads = assigned.read(0, 0x2410, count=1)

    with must_fail():
        check_silent(reads.events)


# -- without a guest --------------------------------------------------------------------------


def check_examined_table(assigned: Assigned, offset: int) -> None:
    """``xp`` of four words leaves four traces of the table, made by no vCPU."""
    with assigned.machine.tracing("memory_region_ops_read") as window:
        assigned.examine(assigned.msix.table_bar, offset, 4)
    found = [
        (event.fields.get("cpu"), event.fields.get("size"))
        for event in window.events
        if event.fields.get("name") == "msix-table"
    ]
    assert found == [(-1, 4)] * 4, window.events


@only("nvme", "e1000e", "igb")
@pytest.mark.rule("TRP-18")
def test_monitor_reads_take_the_same_path(assigned: Assigned) -> None:
    """``xp`` of the table leaves ``memory_region_ops_read cpu -1`` for each word."""
    check_examined_table(assigned, assigned.msix.table_offset)


@only("nvme")
@pytest.mark.negative_control("TRP-18")
def test_monitor_reads_of_ramd_are_others(assigned: Assigned) -> None:
    """The check fails for words behind the table."""
    with must_fail():
        check_examined_table(assigned, 0x2410)
