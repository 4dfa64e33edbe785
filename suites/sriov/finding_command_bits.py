"""Virtual functions of QEMU let Memory Space Enable and Interrupt Disable be set.

Not part of the suites: docs/findings/vf-command-bits.md.
"""

from __future__ import annotations

import pytest

from harness.lab.sriov_stage import SriovStage
from harness.model.pci import Bdf
from suites.sriov.conftest import Family

BITS = {"memory space enable": 1 << 1, "interrupt disable": 1 << 10}


def reads_back(stage: SriovStage, bdf: Bdf, bit: int) -> bool:
    """Set a bit of the command register; say whether it then reads as set."""
    at = ("config", "write", str(bdf), 4, "--value")
    before = int(stage.host.probe("config", "read", str(bdf), 4, "--width", "2")["last"], 16)
    stage.host.probe(*at, before | bit, "--width", "2")
    try:
        said = stage.host.probe("config", "read", str(bdf), 4, "--width", "2")["last"]
        return bool(int(said, 16) & bit)
    finally:
        stage.host.probe(*at, before, "--width", "2")


@pytest.mark.parametrize("name", BITS)
def test_bits_of_a_physical_function_can_be_set(stage: SriovStage, name: str) -> None:
    """The control: it has both bits."""
    assert reads_back(stage, stage.family.bdf, BITS[name])


@pytest.mark.parametrize("name", BITS)
def test_bits_of_a_virtual_function_are_hardwired(
    stage: SriovStage, family: Family, name: str
) -> None:
    """A virtual function has neither (PCIe 6.0, 9.3.4.1.3)."""
    assert not reads_back(stage, family.virtual[0].bdf, BITS[name])
