"""To trap or not to trap, counted at the device: a message for each trapped access, none else.

The guest is a real one, the device is a Python object behind a socket. What it declares decides
by the oracle who must serve each word of each page; then the guest reads there, and both ends
count: QEMU by trace events, the device by the messages that reach it.
"""

from pathlib import Path

import pytest

from harness.device.device import Device
from harness.lab.plugged import Plugged, Touched, page_table
from harness.model.memory_map import MemoryMap
from harness.model.trap import TrapClass
from harness.testing import must_fail
from suites.vfio_user.conftest import Cold, Prepared
from suites.vfio_user.devices import PAGE, Shades, word_at

COUNT = 50
MEMORY_BARS = [0, 2, 5]
BARS = [*MEMORY_BARS, 4]

Sweep = list[tuple[TrapClass, Touched]]
"""What was counted, by the class that was predicted."""


def check_map(plugged: Plugged, declared: Device, found: MemoryMap) -> None:
    """Each row of each BAR is what the declaration implies."""
    expected = plugged.expectation(declared)
    assert not expected.compare(found), expected.explain(found)


@pytest.mark.parametrize("name", ["shades", "closed", "open"])
@pytest.mark.rule("MAP-01", "MAP-02", "MAP-38")
def test_map_is_what_the_device_declares(guest_stage: Prepared, name: str) -> None:
    """Every byte of every BAR is mapped or trapped as the device behind the socket declares."""
    plugged = guest_stage[name]

    check_map(plugged, plugged.device, plugged.machine.memory_map())


@pytest.mark.parametrize("name", ["closed", "open"])
@pytest.mark.negative_control("MAP-01", "MAP-02", "MAP-38")
def test_map_of_another_device_is_noticed(guest_stage: Prepared, name: str) -> None:
    """A device that lets less, or more, be mapped than it was held to fails the check."""
    plugged = guest_stage[name]

    with must_fail():
        check_map(plugged, Shades(), plugged.machine.memory_map())


# -- every page of every BAR ------------------------------------------------------------------


def check_served(touched: Touched, served: TrapClass) -> None:
    """Each access reached the device as a message if it must, and none did if none may.

    QEMU traps a word that shares its page with something else as well, and reads its own
    mapping then; it answers for the MSI-X table itself. Neither makes a message.
    """
    each = touched.count if served is TrapClass.SLOW else 0
    wrong = {hex(offset): n for offset, n in touched.messages.items() if n != each}
    assert not wrong, f"{served.value}, so {each} messages each, but {wrong}: {touched.explain()}"
    assert touched.others == 0, touched.explain()
    assert touched.served_by is served, f"{served.value} expected: {touched.explain()}"


def read_every_page(plugged: Plugged, declared: Device, bar: int) -> Sweep:
    """Read each page of a BAR, by the class that *declared* implies for the place."""
    places = plugged.places(plugged.expectation(declared), bar)
    return [
        (served, plugged.read(bar, *offsets, count=COUNT)) for served, offsets in places.items()
    ]


def check_served_as_declared(sweep: Sweep) -> None:
    """What was predicted for each page is what was counted there."""
    for served, touched in sweep:
        check_served(touched, served)


@pytest.mark.parametrize("bar", BARS)
@pytest.mark.parametrize("name", ["shades", "closed", "open"])
@pytest.mark.rule("TRP-09", "TRP-10", "TRP-07")
def test_pages_are_served_as_declared(
    guest_stage: Prepared, name: str, bar: int, evidence: Path
) -> None:
    """In every page an access is a message to the device, or is none, as the device declares."""
    plugged = guest_stage[name]

    sweep = read_every_page(plugged, plugged.device, bar)

    (evidence / "pages.txt").write_text(page_table(sweep), encoding="utf-8")
    check_served_as_declared(sweep)


@pytest.mark.parametrize(("name", "bar"), [("closed", 0), ("closed", 2), ("open", 0), ("open", 5)])
@pytest.mark.negative_control("TRP-09", "TRP-10", "TRP-07")
def test_device_that_lies_is_noticed(guest_stage: Prepared, name: str, bar: int) -> None:
    """A device that traps what it was said to let be mapped, or the other way, fails."""
    sweep = read_every_page(guest_stage[name], Shades(), bar)

    with must_fail():
        check_served_as_declared(sweep)


# -- what the guest sees, whatever the way ----------------------------------------------------


def check_values(touched: Touched, bar: int) -> None:
    """The guest read the words that are there."""
    wrong = {
        hex(offset): hex(value)
        for offset, value in touched.values.items()
        if value != word_at(bar, offset)
    }
    assert not wrong, f"not the words of BAR {bar}: {wrong}"


@pytest.mark.parametrize("name", ["shades", "closed", "open"])
@pytest.mark.parametrize("bar", [0, 5, 4])
@pytest.mark.rule("TRP-08")
def test_values_are_the_same_by_message_and_by_mapping(
    guest_stage: Prepared, name: str, bar: int
) -> None:
    """The guest reads the same words whether they are mapped or asked of the device."""
    size = min(guest_stage[name].window(bar).size, 4 * PAGE)

    check_values(guest_stage[name].read(bar, *range(0, size, max(size // 8, 4)), count=1), bar)


@pytest.mark.negative_control("TRP-08")
def test_other_values_are_noticed(guest_stage: Prepared) -> None:
    """The check fails for words of another BAR."""
    touched = guest_stage["shades"].read(0, 0, PAGE, count=1)

    with must_fail():
        check_values(touched, 2)


def check_widths(plugged: Plugged, bar: int, offset: int, width: int) -> None:
    """An access of *width* bytes is one message of that width, for reads and for writes."""
    read = plugged.read(bar, offset, count=COUNT, width=width)
    written = plugged.write(bar, offset, read.values[offset], count=COUNT, width=width)
    found = read.messages[offset], written.messages[offset], read.others + written.others
    assert found == (COUNT, COUNT, 0), f"{read.explain()}; {written.explain()}"


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.rule("TRP-07")
def test_messages_have_the_width_of_the_access(guest_stage: Prepared, width: int) -> None:
    """A trapped load or store of 1, 2, 4 or 8 bytes is one message of that width."""
    check_widths(guest_stage["shades"], 0, PAGE + 8, width)


@pytest.mark.negative_control("TRP-07")
def test_accesses_without_messages_are_noticed(guest_stage: Prepared) -> None:
    """The check fails in a page that is mapped."""
    with must_fail():
        check_widths(guest_stage["shades"], 0, 8, 4)


# -- doorbells, and the MSI-X table -----------------------------------------------------------


def check_arrives(plugged: Plugged, offset: int, value: int) -> None:
    """What the guest writes is in the device."""
    found = int.from_bytes(plugged.device.memory(0)[offset : offset + 4], "little")
    assert found == value, f"BAR 0+{offset:#x} of the device holds {found:#x}, not {value:#x}"


@pytest.mark.parametrize(("offset", "messages"), [(0x40, 0), (PAGE + 0x40, 1)])
@pytest.mark.rule("TRP-14")
def test_doorbell_arrives_with_or_without_a_trap(
    guest_stage: Prepared, offset: int, messages: int
) -> None:
    """A write to a mapped doorbell reaches the device without a message, a trapped one by one."""
    plugged = guest_stage["open" if offset < PAGE else "shades"]
    written = plugged.write(0, offset, 0xD00B, count=1)

    check_arrives(plugged, offset, 0xD00B)
    assert written.messages == {offset: messages}, written.explain()


@pytest.mark.negative_control("TRP-14")
def test_doorbell_that_was_not_rung_is_noticed(guest_stage: Prepared) -> None:
    """The check fails for a register that nobody wrote."""
    with must_fail():
        check_arrives(guest_stage["open"], 0x80, 0xD00B)


def check_untold(written: Touched) -> None:
    """The device heard nothing of the writes."""
    assert sum(written.messages.values()) + written.others == 0, written.explain()


@pytest.mark.parametrize("name", ["shades", "closed", "open"])
@pytest.mark.rule("INT-01", "TRP-06")
def test_msix_table_never_reaches_the_device(guest_stage: Prepared, name: str) -> None:
    """Writes to the MSI-X table stay with QEMU: no message comes, nothing changes behind it."""
    plugged = guest_stage[name]
    written = plugged.write(2, PAGE, 0x1234, count=COUNT)

    check_untold(written)
    assert int.from_bytes(plugged.device.region(2).read(PAGE, 4), "little") == word_at(2, PAGE)


@pytest.mark.negative_control("INT-01", "TRP-06")
def test_writes_beside_the_table_are_noticed(guest_stage: Prepared) -> None:
    """The check fails for writes behind the table, which the device is told."""
    written = guest_stage["closed"].write(2, PAGE + 0x800, 0x1234, count=COUNT)

    with must_fail():
        check_untold(written)


# -- plugged cold, without a guest --------------------------------------------------------------


def check_examined(cold: Cold, bar: int, offset: int, messages: int) -> None:
    """Sixteen bytes that the monitor reads there are so many messages."""
    found = cold.messages_of(bar, offset, 4)
    assert found == messages, f"xp of BAR {bar}+{offset:#x}: {found} messages, not {messages}"


@pytest.mark.parametrize(
    ("bar", "offset", "messages"), [(0, 0, 0), (0, PAGE, 2), (2, PAGE, 0), (2, PAGE + 0x40, 2)]
)
@pytest.mark.rule("TRP-18")
def test_monitor_reads_take_the_same_path(
    cold: Cold, bar: int, offset: int, messages: int
) -> None:
    """Where firmware placed the BARs, ``xp`` of what is trapped makes messages of 8 bytes."""
    check_examined(cold, bar, offset, messages)


@pytest.mark.negative_control("TRP-18")
def test_other_paths_of_the_monitor_are_noticed(cold: Cold) -> None:
    """The check fails where it is mapped."""
    with must_fail():
        check_examined(cold, 0, 0, 2)
