"""The registers of an assigned edu, reached from the nested guest (QEMU docs/specs/edu.rst)."""

import math

import pytest

from harness.guest.edu import Edu
from harness.lab.assigned import Assigned
from harness.testing import must_fail


def check_identity(device: Edu) -> None:
    """Register 0x00 holds version 1.0 and the letters that name the device."""
    assert device.register(0) == 0x0100_00ED, hex(device.register(0))


@pytest.mark.rule("EDU-01")
def test_identity(edu: Edu) -> None:
    """Register 0x00 reads 0x010000ed."""
    check_identity(edu)


@pytest.mark.negative_control("EDU-01")
def test_another_device_is_noticed(nvme: Assigned) -> None:
    """The registers of an nvme do not begin like those of an edu."""
    with must_fail():
        check_identity(Edu(nvme.os, nvme.bdf))


def check_complement(edu: Edu, register: int) -> None:
    """What is read from *register* is the complement of what was written."""
    assert edu.inverted(0x1234_5678, register=register) == 0xEDCB_A987


@pytest.mark.rule("EDU-02")
def test_liveness(edu: Edu) -> None:
    """Register 0x04 gives back the complement of what was written."""
    check_complement(edu, 0x04)


@pytest.mark.negative_control("EDU-02")
def test_a_register_that_is_not_alive_is_noticed(edu: Edu) -> None:
    """Register 0x00 does not."""
    with must_fail():
        check_complement(edu, 0x00)


def check_factorial(edu: Edu, number: int) -> None:
    """The device computes *number*!."""
    assert edu.factorial(number) == math.factorial(number)


@pytest.mark.rule("EDU-03")
def test_factorial(edu: Edu) -> None:
    """Register 0x08 turns n into n!, as long as that has 32 bits."""
    check_factorial(edu, 12)


@pytest.mark.negative_control("EDU-03")
def test_a_number_too_large_is_noticed(edu: Edu) -> None:
    """13! has more than 32 bits: the device gives something else."""
    with must_fail():
        check_factorial(edu, 13)


def check_announced(edu: Edu, *, asked: bool) -> None:
    """The end of a computation is an interrupt cause."""
    edu.acknowledged(0xFFFF_FFFF)
    edu.factorial(5, interrupt=asked)
    pending = edu.raised(0)
    edu.acknowledged(0xFFFF_FFFF)
    assert pending == 0x1, hex(pending)


@pytest.mark.rule("EDU-04")
def test_end_of_a_computation_interrupts(edu: Edu) -> None:
    """With bit 0x80 of the status set, the end of a factorial is interrupt cause 1."""
    check_announced(edu, asked=True)


@pytest.mark.negative_control("EDU-04")
def test_an_end_without_an_interrupt_is_noticed(edu: Edu) -> None:
    """Without that bit there is no cause."""
    with must_fail():
        check_announced(edu, asked=False)


def check_acknowledged(edu: Edu, *, bits: int) -> None:
    """A cause that is raised is pending until it is acknowledged."""
    edu.acknowledged(0xFFFF_FFFF)
    raised, left = edu.raised(0x5), edu.acknowledged(bits)
    edu.acknowledged(0xFFFF_FFFF)
    assert (raised, left) == (0x5, 0), (hex(raised), hex(left))


@pytest.mark.rule("EDU-05")
def test_raise_and_acknowledge(edu: Edu) -> None:
    """0x60 raises causes, 0x24 shows them, 0x64 acknowledges them."""
    check_acknowledged(edu, bits=0x5)


@pytest.mark.negative_control("EDU-05")
def test_a_cause_left_over_is_noticed(edu: Edu) -> None:
    """Acknowledging another cause leaves this one pending."""
    with must_fail():
        check_acknowledged(edu, bits=0x2)
