"""Interrupts that a device forges: DMA writes to the window of interrupt messages."""

import pytest

from harness.guest.canary import canary
from harness.guest.dma_engine import DmaEngine, EduEngine
from harness.guest.edu import Edu
from harness.guest.system import System
from harness.host.virtual import VirtualHost
from harness.lab.grounds import Plot
from harness.parse.dmesg import FaultKind
from harness.parse.iommu_fault import IommuFault
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


@on(*REMAPPING)
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
