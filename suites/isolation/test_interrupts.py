"""Interrupts that a device forges: DMA writes to the window of interrupt messages."""

import pytest

from harness.guest.canary import canary
from harness.guest.dma_engine import DmaEngine, EduEngine
from harness.guest.edu import Edu
from harness.guest.system import System
from harness.host.virtual import VirtualHost
from harness.lab.grounds import Grounds, Plot
from harness.parse.dmesg import FaultKind
from harness.parse.iommu_fault import IommuFault
from harness.parse.trace_log import TraceEvent, parse_trace_log
from harness.testing import must_fail
from suites.isolation.checks import IOVA, give
from suites.isolation.conftest import on

NO_ENTRY = 0x7000
"""An index of the interrupt remapping table that Linux has not given to anybody."""
VECTOR = 0xD7
"""One that Linux has not given to anybody either."""
PLAIN = 0xFEE0_0000
"""Address of a message in compatibility format: to processor 0, physical."""
REMAPPING = ("L1-strict-edu", "L1-pt-edu", "L2-intel-edu", "L2-intel-emulated", "L2-pt-emulated")
"""Where VT-d remaps; virtio-iommu does not."""
AMD = "L2-amd-emulated"
"""amd-iommu remaps every message by the low bits of its data; there is no other format."""


def message_address(index: int) -> int:
    """Return the address of a remappable interrupt message (VT-d 5.1.2.2)."""
    return 0xFEE0_0010 | (index & 0x7FFF) << 5 | (index >> 15) << 2


def forge(engine: DmaEngine, address: int) -> None:
    """Let the device write a message for `VECTOR`."""
    assert isinstance(engine, EduEngine)
    engine.put_in(VECTOR.to_bytes(4, "little"))
    engine.write(address, 4)


def check_refused(faults: tuple[IommuFault, ...]) -> None:
    """The first fault is of an interrupt, and names the entry that is not there.

    Its source is not checked: of a plain DMA write to the window QEMU does not know it (VTD-52).
    """
    found = [(fault.kind, fault.index, fault.reason) for fault in faults]
    assert found[:1] == [(FaultKind.INTERRUPT, NO_ENTRY, "0x22")], faults


@on(*REMAPPING)
@pytest.mark.rule("ISO-16", "VTD-52")
def test_a_forged_message_is_refused(plot: Plot, engine: DmaEngine) -> None:
    """A message through an entry that is not there is refused, and logged with its index."""
    log = plot.listen()

    forge(engine, message_address(NO_ENTRY))

    check_refused(log.soon())


@on("L1-strict-edu", "L2-intel-emulated")
@pytest.mark.negative_control("ISO-16", "VTD-52")
def test_a_write_to_memory_is_no_message(plot: Plot, engine: DmaEngine) -> None:
    """A write beside a mapping is refused too, but not as an interrupt, and the check fails."""
    give(engine)
    log = plot.listen()

    forge(engine, IOVA + 0x10_0000)

    with must_fail():
        check_refused(log.soon(timeout=1.5))


def arrived(system: System, mark: int) -> list[str]:
    """Return what Linux logged of interrupts that nobody waits for."""
    wanted = "No irq handler for"
    return [line for line in system.kernel_log_since(mark).splitlines() if wanted in line]


def check_nothing_arrived(system: System, mark: int) -> None:
    """No interrupt came that nobody waits for."""
    found = arrived(system, mark)
    assert not found, found


@on(*REMAPPING, AMD)
@pytest.mark.rule("ISO-16")
def test_a_forged_message_does_not_arrive(plot: Plot, engine: DmaEngine) -> None:
    """No processor gets an interrupt of it."""
    mark = plot.owner.kernel_log_mark()

    forge(engine, message_address(NO_ENTRY))

    check_nothing_arrived(plot.owner, mark)


@pytest.mark.full
@pytest.mark.negative_control("ISO-16")
def test_a_forged_message_without_remapping_arrives(bare: VirtualHost, bare_edu: Edu) -> None:
    """Where nothing remaps interrupts a processor gets it, and the check fails."""
    with canary(bare) as page:
        bare_edu.poke(page.address, VECTOR)
    mark = bare.kernel_log_mark()

    bare_edu.send(PLAIN, 4)

    with must_fail():
        check_nothing_arrived(bare, mark)


# -- amd-iommu --------------------------------------------------------------------------------

RAISE, ACKNOWLEDGE = 0x60, 0x64
REMAPPED = "amdvi_ir_remap_msi"
AS_SENT = "(addr 0xfee00000, data 0xd7)"
"""Half of what QEMU traces where it remaps."""


def interrupts_of(engine: DmaEngine, *, raises: bool = True) -> int:
    """Let the edu raise an MSI, or not; return how many came to its driver."""
    driver = engine.driver
    driver.interrupts("msi", 1)
    try:
        if raises:
            driver.write(0, RAISE, 1)
        came = driver.wait(timeout=5 if raises else 0.2)
        driver.write(0, ACKNOWLEDGE, 1)
    finally:
        driver.interrupts("msi", 0)
    return came


def check_remapped(came: int, events: tuple[TraceEvent, ...]) -> None:
    """An interrupt came, and messages were delivered as another message than was sent."""
    sent = [event.arguments.split(" -> ") for event in events if event.name == REMAPPED]
    assert came and sent, f"{came} came, QEMU remapped {len(sent)} messages"
    assert all(len(set(pair)) == 2 for pair in sent), sent


@on(AMD)
@pytest.mark.rule("VIO-21")
def test_amd_iommu_remaps(plot: Plot, engine: DmaEngine, grounds: Grounds) -> None:
    """An MSI is delivered as its entry of the remapping table says, not as it was sent."""
    with grounds.guest(plot.ground).machine.tracing(REMAPPED) as window:
        came = interrupts_of(engine)

    check_remapped(came, window.events)


@on(AMD)
@pytest.mark.negative_control("VIO-21")
def test_an_interrupt_that_does_not_come_is_noticed(
    plot: Plot, engine: DmaEngine, grounds: Grounds
) -> None:
    """A function that raises none, and a message delivered as it was sent, fail the check."""
    with grounds.guest(plot.ground).machine.tracing(REMAPPED) as window:
        came = interrupts_of(engine, raises=False)
    plain = tuple(parse_trace_log(f"{REMAPPED} {AS_SENT} -> {AS_SENT}"))

    with must_fail():
        check_remapped(came, window.events)
    with must_fail():
        check_remapped(1, plain)
