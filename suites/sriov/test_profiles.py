"""Devices of virtual hosts are as their profiles say (``profiles/``, docs/profiles.md)."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from harness.guest.look import look
from harness.guest.sriov import Sriov
from harness.lab.profiles import load_profile
from harness.lab.sriov_stage import SriovStage
from harness.model.pci import PciId
from harness.model.profile import Answer, DeviceProfile, EnableRule, SeenDevice, check
from harness.testing import must_fail
from suites.sriov.conftest import Family


def check_all_holds(profile: DeviceProfile, seen: SeenDevice) -> None:
    """Every item of the profile was looked at, and holds."""
    odd = [
        f"{one.item}: {one.answer}; wanted {one.wanted}; {one.found}"
        for one in check(profile, seen)
        if one.answer is not Answer.HOLDS
    ]
    assert not odd, f"{profile.name}:\n" + "\n".join(odd)


@pytest.fixture
def seen_igb(igb: Sriov, family: Family) -> SeenDevice:
    """The igb with its virtual functions, as its system shows it."""
    return look(igb.system, load_profile("igb"), igb.bdf)


@pytest.mark.full
@pytest.mark.rule("SRV-16", "SRV-17", "SRV-18", "SRV-19", "SRV-20")
def test_igb_is_as_its_profile_says(seen_igb: SeenDevice) -> None:
    """The emulated igb holds against its profile in every item."""
    check_all_holds(load_profile("igb"), seen_igb)


ALTERED: Mapping[str, Callable[[DeviceProfile], DeviceProfile]] = {
    "id": lambda it: replace(it, physical=replace(it.physical, id=PciId(0x8086, 0x10C8))),
    "bars": lambda it: replace(it, physical=replace(it.physical, bars={})),
    "flr": lambda it: replace(it, virtual=replace(it.virtual, flr=False)),
    "vectors": lambda it: replace(it, virtual=replace(it.virtual, msix=2)),
    "mask": lambda it: replace(it, physical=replace(it.physical, aer_masked=1 << 14)),
    "reset": lambda it: replace(it, virtual=replace(it.virtual, reset=("pm",))),
    "total": lambda it: replace(it, sriov=replace(it.sriov, total=7)),
    "stride": lambda it: replace(it, sriov=replace(it.sriov, stride=1)),
    "enable": lambda it: replace(it, sriov=replace(it.sriov, enable=EnableRule.ALL_OR_NONE)),
}


@pytest.mark.full
@pytest.mark.parametrize("name", ALTERED)
@pytest.mark.negative_control("SRV-16", "SRV-17", "SRV-18", "SRV-19", "SRV-20")
def test_an_altered_profile_is_noticed(seen_igb: SeenDevice, name: str) -> None:
    """One item that says something else, and the device does not hold any more."""
    altered = ALTERED[name](load_profile("igb"))

    with must_fail():
        check_all_holds(altered, seen_igb)


@pytest.mark.full
@pytest.mark.rule("SRV-28")
@pytest.mark.negative_control("SRV-28")
def test_nvme_is_as_its_profile_says(nvme_stage: SriovStage) -> None:
    """The emulated nvme family holds against its profile, and not against that of the igb."""
    with nvme_stage.family.enabled(2):
        seen = look(nvme_stage.host, load_profile("nvme"), nvme_stage.family.bdf)

    check_all_holds(load_profile("nvme"), seen)
    with must_fail():
        check_all_holds(load_profile("igb"), seen)
