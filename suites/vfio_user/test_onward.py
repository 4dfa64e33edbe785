"""A device in Python behind two QEMUs: assigned onward to a nested guest by vfio-pci.

The nested guest's QEMU, in the virtual host, is the one under test. The lab's QEMU around the
host speaks to the device. Each of them maps or traps, for itself:

=====================  ==========================  =======================================
page of the device     nested QEMU (trace events)  device (messages)
=====================  ==========================  =======================================
mapped by both         nothing                     nothing
trapped by the lab's   nothing: it believes that   each access
                       it maps hardware
MSI-X table            each access                 nothing
``x-no-mmap``          each access                 each access where the lab's traps, too
=====================  ==========================  =======================================
"""

import pytest

from harness.guest.canary import canary
from harness.lab.assigned import Assigned
from harness.lab.nested import Nested
from harness.lab.plugged import Plugged
from harness.model.memory_map import MemoryMap
from harness.model.trap import TrapClass
from harness.testing import must_fail
from suites.vfio_user.conftest import ONWARD, Prepared
from suites.vfio_user.devices import PAGE, word_at
from suites.vfio_user.test_dma import check_refused, check_same, read

COUNT = 40


def check_map(assigned: Assigned, found: MemoryMap) -> None:
    """Each row of each BAR is what device, kernel and options imply."""
    expected = assigned.expectation()
    assert not expected.compare(found), expected.explain(found)


@pytest.mark.parametrize("name", ONWARD)
@pytest.mark.rule("NST-22", "MAP-01", "MAP-02")
def test_map_is_what_the_device_implies(onward: Nested, name: str) -> None:
    """In the nested machine every byte of every BAR is mapped or trapped as vfio-pci must."""
    assigned = onward.assigned[name]

    check_map(assigned, assigned.memory_map())


@pytest.mark.negative_control("NST-22", "MAP-01", "MAP-02")
def test_map_of_another_device_is_noticed(onward: Nested) -> None:
    """The check fails for a device that is assigned in another way than it was held to."""
    hidden = onward.assigned["hidden"]
    plain = Assigned("hidden", hidden.function, hidden.host, hidden.machine, hidden.guest)

    with must_fail():
        check_map(plain, hidden.memory_map())


# -- who answers, counted at both ---------------------------------------------------------------


def check_both(
    assigned: Assigned, plugged: Plugged, bar: int, offset: int, *, inner: TrapClass, told: bool
) -> None:
    """The nested QEMU serves the reads as *inner*; the device is told of each, or of none."""
    before = plugged.served.accesses.count(bar, offset=offset, operation="read")
    reads = assigned.read(bar, offset, count=COUNT)
    messages = plugged.served.accesses.count(bar, offset=offset, operation="read") - before
    assert reads.served_by is inner, reads.explain()
    few, many = (COUNT, COUNT + 2) if told else (0, 0)  # once more: the page is touched first
    assert few <= messages <= many, f"{messages} messages to the device; {reads.explain()}"


PLACES = [
    ("shades", 0, 0, TrapClass.DIRECT, False),
    ("shades", 0, PAGE, TrapClass.DIRECT, True),
    ("shades", 2, PAGE, TrapClass.TABLE, False),
    ("hidden", 0, 0, TrapClass.SLOW, False),
    ("hidden", 0, PAGE, TrapClass.SLOW, True),
    ("hidden", 2, PAGE, TrapClass.TABLE, False),
    ("vf", 0, 0, TrapClass.DIRECT, False),
]


@pytest.mark.parametrize(("name", "bar", "offset", "inner", "told"), PLACES)
@pytest.mark.rule("TRP-17", "TRP-08", "TRP-07")
def test_each_qemu_traps_for_itself(
    trapping_guest: Nested,
    host_stage: Prepared,
    name: str,
    bar: int,
    offset: int,
    inner: TrapClass,
    told: bool,
) -> None:
    """What the nested QEMU traps and what reaches the device are two things, each predicted."""
    check_both(
        trapping_guest.assigned[name], host_stage[name], bar, offset, inner=inner, told=told
    )


@pytest.mark.parametrize(
    ("name", "offset", "inner", "told"),
    [
        ("shades", PAGE, TrapClass.DIRECT, False),
        ("shades", 0, TrapClass.SLOW, False),
        ("hidden", 0, TrapClass.SLOW, True),
    ],
)
@pytest.mark.negative_control("TRP-17", "TRP-08", "TRP-07")
def test_wrong_prediction_is_noticed(
    trapping_guest: Nested,
    host_stage: Prepared,
    name: str,
    offset: int,
    inner: TrapClass,
    told: bool,
) -> None:
    """The check fails where either of the two is predicted wrongly."""
    with must_fail():
        check_both(
            trapping_guest.assigned[name], host_stage[name], 0, offset, inner=inner, told=told
        )


def check_words(assigned: Assigned, bar: int) -> None:
    """The nested guest reads the words that are in the device."""
    offsets = [0, 0x800, PAGE + 8, 3 * PAGE]
    found = [assigned.words(bar, offset, 1)[0] for offset in offsets]
    assert found == [word_at(bar, offset) for offset in offsets], [hex(word) for word in found]


@pytest.mark.parametrize("name", ["shades", "hidden"])
@pytest.mark.rule("TRP-08")
def test_values_come_through_both(trapping_guest: Nested, name: str) -> None:
    """Whoever traps, the nested guest reads what is in the device."""
    check_words(trapping_guest.assigned[name], 0)


@pytest.mark.negative_control("TRP-08")
def test_values_of_the_table_are_others(trapping_guest: Nested) -> None:
    """The check fails where QEMU answers for the device: its MSI-X table."""
    assigned = trapping_guest.assigned["shades"]

    with must_fail():
        check_words(assigned, 2)


# -- DMA through two IOMMUs -------------------------------------------------------------------


@pytest.fixture
def master(onward: Nested) -> Assigned:
    """An assigned device that the nested guest made bus master."""
    found = onward.assigned["shades"]
    found.os.probe("config", "write", str(found.bdf), 4, "--width", "2", "--value", 7)
    return found


@pytest.mark.rule("NST-19")
def test_dma_reaches_the_nested_guest(master: Assigned, host_stage: Prepared) -> None:
    """At a physical address of the nested guest the device finds that guest's memory."""
    with canary(master.os, value=0x0123_4567_89AB_CDEF) as page:
        found = read(host_stage["shades"], page.address, 8, by_message=False)

    check_same(found, (0x0123_4567_89AB_CDEF).to_bytes(8, "little"))


@pytest.mark.rule("NST-20")
def test_dma_does_not_reach_the_host(master: Assigned, host_stage: Prepared) -> None:
    """At a physical address of the host above the nested guest's memory it finds nothing."""
    above = master.machine.spec.memory_mib << 20
    with canary(master.host, above=above) as page:
        check_refused(host_stage["shades"], page.address, by_message=False)


@pytest.mark.negative_control("NST-20")
def test_dma_inside_of_the_nested_guest_is_not_refused(
    master: Assigned, host_stage: Prepared
) -> None:
    """The check fails for an address that the nested guest has."""
    with canary(master.os) as page, must_fail():
        check_refused(host_stage["shades"], page.address, by_message=False)
