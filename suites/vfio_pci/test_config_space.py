"""Configuration space of an assigned function as its guest sees it."""

import pytest

from harness.lab.assigned import Assigned
from harness.model.pci import PciFunction
from harness.testing import must_fail, only

ARI, SRIOV = 0x0E, 0x10
"""Extended capability ids (PCIe 6.0, 7.8.8 and 9.3.3)."""


def check_hidden(function: PciFunction) -> None:
    """Extended capabilities are there, SR-IOV and ARI not among them."""
    found = {c.id for c in function.capabilities if c.extended}
    assert found and not found & {ARI, SRIOV}, [hex(each) for each in found]


@only("igb")
@pytest.mark.rule("MAP-36")
def test_sriov_and_ari_are_hidden(assigned: Assigned) -> None:
    """The guest of a physical function sees neither SR-IOV nor ARI."""
    check_hidden(assigned.seen_by_guest())


@only("igb")
@pytest.mark.negative_control("MAP-36")
def test_shown_sriov_is_noticed(assigned: Assigned) -> None:
    """The check fails on the function as the host sees it."""
    with must_fail():
        check_hidden(assigned.function)
