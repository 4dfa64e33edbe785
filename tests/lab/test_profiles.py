"""Profiles against what the sysfs of a Linux 6.12 was recorded to say of the device.

A record is what `READ_FUNCTIONS` printed; the newer ones have lines of two further attributes
before it (``grep -Hs '' */reset_method */sriov_totalvfs``). ``igb`` and ``nvme`` are QEMU's, with
two virtual functions each; ``qat-c62x`` are the models in front of the same Linux.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.lab.profiles import load_profile
from harness.model.pci import PciFunction, PciId
from harness.model.profile import (
    Answer,
    DeviceProfile,
    EnableRule,
    Finding,
    SeenDevice,
    SeenFunction,
    check,
    of_shapes,
)
from harness.parse.pci_bus import parse_functions

SAMPLES = Path(__file__).parents[1] / "samples" / "profiles"
NOT_RECORDED = {"physical.reset", "virtual.reset", "sriov.driver_total"}
"""They lie in files of their own, which the record of the igb has not."""


def text_of(name: str) -> str:
    return (SAMPLES / f"{name}.txt").read_text(encoding="utf-8")


def recorded(name: str) -> tuple[PciFunction, ...]:
    """Return the functions of a record."""
    return tuple(parse_functions(text_of(name)))


def seen(name: str) -> tuple[SeenFunction, ...]:
    """Return the functions of a record, with their resets; no line of it is no reset."""
    resets = dict(re.findall(r"^(\S+)/reset_method:(.*)$", text_of(name), re.MULTILINE))
    return tuple(
        SeenFunction(one, tuple(resets.get(str(one.bdf), "").split())) for one in recorded(name)
    )


def recorded_nvme() -> SeenDevice:
    physical, *virtual = seen("nvme")
    total = re.search(r"/sriov_totalvfs:(\d+)$", text_of("nvme"), re.MULTILINE)
    assert total is not None
    return SeenDevice(physical, tuple(virtual), driver_total=int(total[1]))


def recorded_c62x() -> SeenDevice:
    return of_shapes(*seen("qat-c62x-pf"), *seen("qat-c62x-vf"))


def differing(found: tuple[Finding, ...]) -> set[str]:
    return {one.item for one in found if one.answer is Answer.DIFFERS}


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


def test_the_recorded_nvme_is_as_its_profile_says() -> None:
    found = check(load_profile("nvme"), recorded_nvme())

    assert [f"{one}" for one in found if one.answer is not Answer.HOLDS] == []
    assert {one.item for one in found} >= {"sriov.places", "sriov.enable", *NOT_RECORDED}


NVME_OTHERWISE: dict[str, Callable[[DeviceProfile], DeviceProfile]] = {
    "physical.msix": lambda it: replace(it, physical=replace(it.physical, msix=9)),
    "physical.reset": lambda it: replace(it, physical=replace(it.physical, reset=("bus",))),
    "virtual.id": lambda it: replace(it, virtual=replace(it.virtual, id=PciId(0x1B36, 0x0011))),
    "virtual.flr": lambda it: replace(it, virtual=replace(it.virtual, flr=False)),
    "virtual.bars": lambda it: replace(it, virtual=replace(it.virtual, bars={})),
    "sriov.total": lambda it: replace(it, sriov=replace(it.sriov, total=8)),
    "sriov.driver_total": lambda it: replace(it, sriov=replace(it.sriov, driver_total=3)),
    "sriov.enable": lambda it: replace(it, sriov=replace(it.sriov, enable=EnableRule.ALL_OR_NONE)),
}


@pytest.mark.parametrize("item", NVME_OTHERWISE)
def test_the_recorded_nvme_differs_in_what_a_profile_says_otherwise(item: str) -> None:
    altered = NVME_OTHERWISE[item](load_profile("nvme"))

    assert differing(check(altered, recorded_nvme())) == {item}


def test_the_recorded_nvme_with_another_stride_is_told_by_register_and_by_place() -> None:
    profile = load_profile("nvme")
    altered = replace(profile, sriov=replace(profile.sriov, stride=2))

    assert differing(check(altered, recorded_nvme())) == {"sriov.stride", "sriov.places"}


def test_a_recorded_nvme_whose_second_function_is_missing_is_in_the_wrong_place() -> None:
    whole = recorded_nvme()

    found = check(load_profile("nvme"), replace(whole, virtual=whole.virtual[1:]))

    assert differing(found) == {"sriov.places"}


def test_the_recorded_c62x_is_as_its_profile_says() -> None:
    found = check(load_profile("qat-c62x"), recorded_c62x())

    assert differing(found) == set()
    unasked = {one.item for one in found if one.answer is Answer.UNASKED}
    assert unasked == {item.item for item in found if item.item.startswith("sriov.")}
    known = {one.item for one in found if one.defects}
    assert known == {"virtual.flr", "sriov.enable"}


C62X_OTHERWISE: dict[str, Callable[[DeviceProfile], DeviceProfile]] = {
    "physical.id": lambda it: replace(it, physical=replace(it.physical, id=PciId(0x8086, 0x19E2))),
    "physical.aer_masked": lambda it: replace(it, physical=replace(it.physical, aer_masked=1)),
    "virtual.flr": lambda it: replace(it, virtual=replace(it.virtual, flr=True)),
    "virtual.msi": lambda it: replace(it, virtual=replace(it.virtual, msi=16)),
    "virtual.interrupt_pin": lambda it: replace(it, virtual=replace(it.virtual, interrupt_pin=1)),
}


@pytest.mark.parametrize("item", C62X_OTHERWISE)
def test_the_recorded_c62x_differs_in_what_a_profile_says_otherwise(item: str) -> None:
    altered = C62X_OTHERWISE[item](load_profile("qat-c62x"))

    assert differing(check(altered, recorded_c62x())) == {item}


def test_the_recorded_c62x_is_no_nvme() -> None:
    found = check(load_profile("nvme"), recorded_c62x())

    assert {"physical.id", "physical.class_code", "virtual.flr"} <= differing(found)
