"""What a driver of edu must know of its DMA and its widths (QEMU hw/misc/edu.c)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from harness.guest.vfio_driver import VfioDriver, drive
from harness.lab.driver_guest import DriverGuest
from harness.testing import must_fail, skip
from harness.wait import wait_until

pytestmark = pytest.mark.full

IOVA = 0x10_0000
ABOVE = 1 << 32 | IOVA
"""The same below bit 28."""
BUFFER, BUFFER_END = 0x40000, 0x41000
ID, LIVENESS, STATUS = 0x00, 0x04, 0x20
SOURCE, TARGET, COUNT, COMMAND = 0x80, 0x88, 0x90, 0x98
TO_BUFFER, FROM_BUFFER = 0x1, 0x3
ONES = 0xFFFF_FFFF_FFFF_FFFF
OUT_OF_BOUNDS = "out of bounds"
"""QEMU since 9.1: ``EDU: DMA range … out of bounds (…)!`` (edu_check_range)."""


@contextlib.contextmanager
def driven(guest: DriverGuest, name: str = "edu") -> Iterator[VfioDriver]:
    """Have an edu driven by vfio."""
    bdf = guest.edu(name).bdf
    with guest.host.bound(bdf, "vfio-pci"), drive(guest.host, bdf) as driver:
        yield driver


def copy(driver: VfioDriver, source: int, target: int, count: int, command: int) -> None:
    """Let the device copy; return when it is done (its engine takes 100 ms)."""
    for register, value in ((SOURCE, source), (TARGET, target), (COUNT, count)):
        driver.write(0, register, value, width=8)
    driver.write(0, COMMAND, command, width=8)
    wait_until(
        "DMA engine of edu idle", lambda: not driver.read(0, COMMAND, width=8) & 1, timeout=10
    )


def check_masked(guest: DriverGuest, name: str) -> None:
    """A write above 256 MiB lands at the address without its upper bits."""
    with driven(guest, name) as driver:
        driver.map(IOVA)
        driver.put(IOVA, b"\x5a" * 8)
        copy(driver, BUFFER, ABOVE, 8, FROM_BUFFER)
        found = driver.get(IOVA, 8)
    assert found == bytes(8), f"{found.hex()} at {IOVA:#x}: the write to {ABOVE:#x} went elsewhere"


@pytest.mark.rule("EDU-08")
def test_dma_addresses_are_masked(shielded_guest: DriverGuest) -> None:
    """The edu that nobody gave a dma_mask has 28 address bits; the others are cut off."""
    check_masked(shielded_guest, "edu-28")


@pytest.mark.negative_control("EDU-08")
def test_a_wide_mask_is_noticed(shielded_guest: DriverGuest) -> None:
    """With a dma_mask of 64 bits the same write goes where it was sent, and the check fails."""
    with must_fail():
        check_masked(shielded_guest, "edu")


def check_four_bytes_only(driver: VfioDriver, register: int) -> None:
    """Read with 8 bytes, *register* is no register: all ones."""
    found = driver.read(0, register, width=8)
    assert found == ONES, hex(found)


@pytest.mark.parametrize("register", [ID, STATUS], ids=["identification", "status"])
@pytest.mark.rule("EDU-09")
def test_low_registers_are_four_bytes(shielded_guest: DriverGuest, register: int) -> None:
    """Below 0x80 a read of 8 bytes is answered by no register; one of 4 bytes is."""
    with driven(shielded_guest) as driver:
        assert driver.read(0, ID) == 0x0100_00ED
        check_four_bytes_only(driver, register)


def check_eight_bytes(driver: VfioDriver, register: int) -> None:
    """Written with 8 bytes, *register* is read so."""
    driver.write(0, register, 0x1_2345_6789, width=8)
    found = driver.read(0, register, width=8)
    assert found == 0x1_2345_6789, hex(found)


@pytest.mark.rule("EDU-09")
def test_dma_registers_may_be_eight_bytes(shielded_guest: DriverGuest) -> None:
    """From 0x80 on, 8 bytes are written and read at once."""
    with driven(shielded_guest) as driver:
        check_eight_bytes(driver, SOURCE)


@pytest.mark.negative_control("EDU-09")
def test_a_register_of_the_other_width_is_noticed(shielded_guest: DriverGuest) -> None:
    """A DMA register is read with 8 bytes, one below 0x80 is not, and the checks fail."""
    with driven(shielded_guest) as driver:
        driver.write(0, SOURCE, BUFFER, width=8)
        with must_fail():
            check_four_bytes_only(driver, SOURCE)
        with must_fail():
            check_eight_bytes(driver, ID)


def check_out_of_range_is_logged(guest: DriverGuest, *, count: int) -> None:
    """A copy of *count* bytes from the end of the buffer leaves it; QEMU logs that and lives."""
    machine = guest.machine
    if not guest.parts.qemu.version.has(9, 1):
        skip("QEMU before 9.1 aborts for this", enabled_by="QEMU 9.1 or later")
    before = machine.place.size(machine.sockets.trace)
    machine.qmp.hmp("log guest_errors")
    try:
        with driven(guest) as driver:
            driver.map(IOVA)
            copy(driver, BUFFER_END - 8, IOVA, count, FROM_BUFFER)
    finally:
        machine.qmp.hmp("log none")
    said = machine.place.read(machine.sockets.trace, offset=before).decode(errors="replace")
    machine.check()
    assert OUT_OF_BOUNDS in said, said or "nothing was logged"


@pytest.mark.rule("EDU-10")
def test_dma_out_of_the_buffer_is_logged(shielded_guest: DriverGuest) -> None:
    """A DMA over the end of the device's buffer is a guest error; QEMU logs it and goes on."""
    check_out_of_range_is_logged(shielded_guest, count=16)


@pytest.mark.negative_control("EDU-10")
def test_dma_inside_the_buffer_is_noticed(shielded_guest: DriverGuest) -> None:
    """A DMA up to the end of the buffer is none, and the check fails."""
    with must_fail():
        check_out_of_range_is_logged(shielded_guest, count=8)
