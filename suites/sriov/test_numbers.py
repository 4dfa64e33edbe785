"""How many virtual functions there may be, and what Linux says to another number."""

import pytest

from harness.guest.sriov import Sriov
from harness.testing import must_fail
from suites.sriov.conftest import COUNT, Family, check_refused

OUT_OF_RANGE = "Numerical result out of range"
BUSY = "Device or resource busy"


def check_attributes(function: Sriov) -> None:
    """It says how many virtual functions it can have and has."""
    assert function.has("totalvfs") and function.has("numvfs")


@pytest.mark.rule("SRV-01")
def test_attributes_are_there(igb: Sriov) -> None:
    """A function with the SR-IOV capability has sriov_totalvfs and sriov_numvfs."""
    check_attributes(igb)


@pytest.mark.negative_control("SRV-01")
def test_a_function_without_is_noticed(plain: Sriov) -> None:
    """A function without the capability has not."""
    with must_fail():
        check_attributes(plain)


@pytest.mark.rule("SRV-02")
def test_more_than_there_are_is_refused(igb: Sriov) -> None:
    """One more than sriov_totalvfs is out of range."""
    check_refused(igb, int(igb.read("totalvfs")) + 1, OUT_OF_RANGE)


@pytest.mark.negative_control("SRV-02")
def test_a_number_in_range_is_noticed(igb: Sriov) -> None:
    """The number that there is, which is in range, is not refused."""
    with must_fail():
        check_refused(igb, int(igb.read("numvfs")), OUT_OF_RANGE)


ALREADY = f"{COUNT} VFs already enabled. Disable before enabling {COUNT + 1} VFs"


@pytest.mark.rule("SRV-03")
def test_another_number_is_refused_while_there_are_some(igb: Sriov, family: Family) -> None:
    """From two virtual functions to three there is no way but through none."""
    check_refused(igb, COUNT + 1, BUSY, ALREADY)


@pytest.mark.negative_control("SRV-03")
def test_the_same_number_is_noticed(igb: Sriov, family: Family) -> None:
    """The number that there is already is no change, and not refused."""
    with must_fail():
        check_refused(igb, COUNT, BUSY, ALREADY)
