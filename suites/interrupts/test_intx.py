"""The interrupt pin of an assigned function: armed again each time, past QEMU and through it."""

import re
from dataclasses import dataclass, replace

import pytest

from harness.guest.block import BlockDevice
from harness.host.host import Host
from harness.host.virtual_spec import assigned_device, nested_spec
from harness.lab.assigned import Assigned
from harness.lab.hosts import DISK_SEED
from harness.lab.nested import Nested
from harness.model.memory_map import Kind, MemoryMap
from harness.model.pci import Bdf
from harness.parse.trace_log import TraceEvent, parse_trace_log
from harness.suite_fixtures import Free, Launch
from harness.testing import must_fail
from suites.interrupts.conftest import Listening

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("kvm")]

BY_QEMU, MMAPS, ENABLED = (
    "vfio_intx_interrupt", "vfio_region_mmaps_set_enabled", "vfio_intx_enable",
)  # fmt: skip
SIZE = 64 * 1024
COUNT = 20
"""Interrupts that are raised, one after the other."""
STORM = 2000
"""Accesses that raise one, without a pause."""
LONGER_THAN_THE_TIMER = "2"
"""Seconds; x-intx-mmap-timeout-ms is 1100."""

each_way = pytest.mark.parametrize("way", ["irqfd", "qemu"], indirect=True)
with_timer = pytest.mark.parametrize("way", ["qemu"], indirect=True)
without_timer = pytest.mark.parametrize("way", ["untimed"], indirect=True)
by_irqfd = pytest.mark.parametrize("way", ["irqfd"], indirect=True)


# -- armed again ------------------------------------------------------------------------------


def came(pin: Listening) -> tuple[int, int]:
    """Let the card raise its pin `COUNT` times; return what host and guest counted of it."""
    guest, host = pin.card.system, pin.nested.host
    before = guest.interrupts(), host.interrupts()
    pin.card.raise_pin(COUNT)
    passed_on = host.interrupts().since(before[1]).containing(f"({pin.assigned.function.bdf})")
    arrived = pin.card.arrived(guest.interrupts().since(before[0]))
    return sum(row.total for row in passed_on), arrived.total()


def check_came_again(found: tuple[int, int]) -> None:
    """They came again and again: some may meet on the line, which has one level."""
    assert min(found) >= COUNT // 2, f"{COUNT} were raised; host and guest had {found}"


@each_way
@pytest.mark.rule("INT-19")
def test_pin_is_armed_again(pin: Listening) -> None:
    """Each INTx arrives: its end, seen by KVM or by QEMU, arms the next one."""
    check_came_again(came(pin))


@each_way
@pytest.mark.rule("INT-19")
def test_pin_recovers_from_a_storm(pin: Listening) -> None:
    """After a storm of interrupts each further one arrives."""
    pin.card.burst(STORM)

    check_came_again(came(pin))


@each_way
@pytest.mark.negative_control("INT-19")
def test_pin_that_is_not_armed_again_is_noticed(pin: Listening) -> None:
    """A pin that the guest disabled in the command register fails the check."""
    with pin.assigned.pin_off():
        found = came(pin)

    with must_fail():
        check_came_again(found)


# -- the mappings, meanwhile ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Work:
    """What was seen while the guest read from its disk."""

    events: tuple[TraceEvent, ...]
    interrupts: int
    """Of the pin, counted by the guest."""
    after: MemoryMap
    """Of the machine, right afterwards."""

    def count(self, name: str, containing: str = "") -> int:
        """Return the number of events *name* with these words."""
        return sum(e.name == name and containing in e.arguments for e in self.events)


def work_of(nested: Nested) -> Work:
    """Let the guest read its disk, which interrupts by the pin."""
    guest = nested.assigned["nvme"].os
    before = guest.interrupts()
    with nested.machine.tracing(BY_QEMU, MMAPS) as window:
        assert BlockDevice(guest, "/dev/nvme0n1").holds(DISK_SEED, offset=0, length=SIZE)
        after = nested.machine.memory_map()
    rows = guest.interrupts().since(before).containing("nvme0q")
    assert not any("MSI" in row.chip for row in rows), rows
    return Work(window.events, sum(row.total for row in rows), after)


def mapped(assigned: Assigned, found: MemoryMap) -> bool:
    """Say whether anything of BAR 0 is mapped."""
    return any(row.kind is Kind.RAMD for row in found.memory.covering(assigned.window(0)))


def check_stays_mapped(nvme: Assigned, work: Work) -> None:
    """There were interrupts, QEMU saw none of them, and the device stayed mapped."""
    assert work.interrupts > 0, "the guest counted no interrupt"
    assert (work.count(BY_QEMU), work.count(MMAPS)) == (0, 0), work.events[:4]
    assert mapped(nvme, work.after)


@pytest.mark.rule("INT-09")
def test_bypass_keeps_the_mappings(intx_guest: Nested) -> None:
    """With KVM's bypass an INTx does not reach QEMU, and the BARs stay mapped."""
    nvme = intx_guest.assigned["nvme"]

    work = work_of(intx_guest)

    check_stays_mapped(nvme, work)


@pytest.mark.negative_control("INT-09")
def test_mappings_that_went_are_noticed(intx_guest: Nested) -> None:
    """The check fails for a map in which what is mapped traps, and where nothing interrupted."""
    nvme, work = intx_guest.assigned["nvme"], work_of(intx_guest)
    trapped = work.after.altered(lambda row: replace(row, kind=Kind.IO))

    with must_fail():
        check_stays_mapped(nvme, replace(work, after=trapped))
    with must_fail():
        check_stays_mapped(nvme, replace(work, interrupts=0))


def work_by_pin(pin: Listening) -> Work:
    """Let a network card raise its pin, thrice."""
    guest = pin.card.system
    with pin.nested.machine.tracing(BY_QEMU, MMAPS) as window:
        before = guest.interrupts()
        pin.card.raise_pin(3)
        after = pin.nested.machine.memory_map()
    interrupts = pin.card.arrived(guest.interrupts().since(before)).total()
    return Work(window.events, interrupts, after)


def check_traps_meanwhile(assigned: Assigned, work: Work) -> None:
    """QEMU saw the interrupts, took the mappings away each time, and they are away."""
    seen, away = work.count(BY_QEMU), work.count(MMAPS, "BAR 0 mmaps enabled: 0")
    assert work.interrupts > 0 and seen > 0, f"guest {work.interrupts}, QEMU {seen}"
    assert away == seen, f"{seen} interrupts, mappings taken away {away} times"
    assert not mapped(assigned, work.after), "BAR 0 is mapped"


@without_timer
@pytest.mark.rule("INT-07")
@pytest.mark.negative_control("INT-09")
def test_interrupts_through_qemu_take_the_mappings_away(pin: Listening) -> None:
    """With x-no-kvm-intx each INTx makes every page of the device trap."""
    work = work_by_pin(pin)

    check_traps_meanwhile(pin.assigned, work)
    with must_fail():
        check_stays_mapped(pin.assigned, work)


@by_irqfd
@pytest.mark.rule("INT-09")
@pytest.mark.negative_control("INT-07")
def test_interrupts_past_qemu_leave_the_mappings(pin: Listening) -> None:
    """Without that option the same interrupts leave the device mapped."""
    work = work_by_pin(pin)

    check_stays_mapped(pin.assigned, work)
    with must_fail():
        check_traps_meanwhile(pin.assigned, work)


def check_mapped_again(assigned: Assigned) -> None:
    """Some time after its last interrupt the device is mapped."""
    assigned.os.run(["sleep", LONGER_THAN_THE_TIMER])
    assert mapped(assigned, assigned.memory_map()), "BAR 0 is not mapped again"


def check_not_mapped_again(assigned: Assigned) -> None:
    """Some time after its last interrupt the device is not mapped."""
    assigned.os.run(["sleep", LONGER_THAN_THE_TIMER])
    assert not mapped(assigned, assigned.memory_map()), "BAR 0 is mapped again"


def last_interrupts(pin: Listening) -> int:
    """Let the card interrupt, then nobody listen; return how often mappings were taken away."""
    with pin.nested.machine.tracing(MMAPS) as window:
        pin.card.raise_pin(1)
        pin.card.down()
    return window.count(MMAPS, "BAR 0 mmaps enabled: 0")


@with_timer
@pytest.mark.rule("INT-08")
@pytest.mark.negative_control("INT-08")
def test_timer_brings_the_mappings_back(pin: Listening) -> None:
    """When a device was quiet for x-intx-mmap-timeout-ms, its BARs are mapped again."""
    assert last_interrupts(pin) > 0

    check_mapped_again(pin.assigned)
    with must_fail():
        check_not_mapped_again(pin.assigned)


@without_timer
@pytest.mark.rule("INT-08")
@pytest.mark.negative_control("INT-08")
def test_without_a_timer_they_do_not_come_back(pin: Listening) -> None:
    """With x-intx-mmap-timeout-ms=0 they go on trapping."""
    assert last_interrupts(pin) > 0

    check_not_mapped_again(pin.assigned)
    with must_fail():
        check_mapped_again(pin.assigned)


# -- at the start -----------------------------------------------------------------------------


def check_starts_with_pin(events: tuple[TraceEvent, ...], bdf: Bdf) -> None:
    """QEMU enabled INTx of the function as it took it."""
    assert any(re.search(rf"\({re.escape(str(bdf))}\)", e.arguments) for e in events), events


@pytest.mark.parametrize("name", ["nvme", "edu"])
@pytest.mark.rule("INT-06")
@pytest.mark.negative_control("INT-06")
def test_function_starts_in_intx_mode(host: Host, free: Free, launch: Launch, name: str) -> None:
    """A function with an interrupt pin is in INTx mode before any driver is there."""
    bdf = free(name).bdf
    spec = nested_spec(accel=host.accelerator.option, memory_mib=64,
                       assigned=[assigned_device(name, str(bdf))])  # fmt: skip

    machine = launch(replace(spec, paused=True, extra=("-trace", f"enable={ENABLED}")))

    found = tuple(parse_trace_log(machine.place.read(machine.sockets.trace).decode()))
    check_starts_with_pin(found, bdf)
    with must_fail():
        check_starts_with_pin(found, Bdf(bdf.domain, bdf.bus, bdf.device, bdf.function ^ 1))
