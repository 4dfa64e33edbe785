"""Profiles against what the sysfs of a Linux 6.12 was recorded to say of the device."""

from __future__ import annotations

from pathlib import Path

from harness.lab.profiles import load_profile
from harness.model.pci import PciFunction
from harness.model.profile import Answer, SeenDevice, SeenFunction, check
from harness.parse.pci_bus import parse_functions

SAMPLES = Path(__file__).parents[1] / "samples" / "profiles"
NOT_RECORDED = {"physical.reset", "virtual.reset", "sriov.driver_total"}
"""They lie in files of their own."""


def recorded(name: str) -> tuple[PciFunction, ...]:
    """Return the functions of a record: what `READ_FUNCTIONS` printed."""
    return tuple(parse_functions((SAMPLES / f"{name}.txt").read_text(encoding="utf-8")))


def test_the_recorded_igb_is_as_its_profile_says() -> None:
    physical, *virtual = map(SeenFunction, recorded("igb"))

    found = check(load_profile("igb"), SeenDevice(physical, tuple(virtual)))

    assert {one.item for one in found if one.answer is not Answer.HOLDS} == NOT_RECORDED
    assert {one.answer for one in found if one.item in NOT_RECORDED} == {Answer.UNASKED}


def test_the_recorded_igb_is_no_c62x() -> None:
    physical, *virtual = map(SeenFunction, recorded("igb"))

    found = check(load_profile("qat-c62x"), SeenDevice(physical, tuple(virtual), driver_total=7))

    holds = {one.item for one in found if one.answer is Answer.HOLDS}
    assert holds == {"virtual.interrupt_pin"}
