"""How QEMU lists an assigned function."""

import pytest

from harness.lab.assigned import Assigned
from harness.testing import must_fail, only


def check_listed(assigned: Assigned, listing: str) -> None:
    """The listing names the device by driver and id."""
    wanted = f'dev: vfio-pci, id "{assigned.name}"'
    assert wanted in listing, f"no {wanted!r} among {listing.count('dev:')} devices of info qtree"


@pytest.mark.rule("LIF-32")
def test_qtree_shows_the_assigned_function(assigned: Assigned) -> None:
    """``info qtree`` shows an assigned function as vfio-pci, with its id."""
    check_listed(assigned, assigned.machine.qmp.hmp("info qtree"))


@pytest.mark.rule("LIF-32")
def test_query_pci_shows_the_assigned_function(assigned: Assigned) -> None:
    """``query-pci`` lists an assigned function under its id, with the ids of the hardware."""
    listed = {f.qdev_id: f.id for f in assigned.machine.functions()}

    assert listed.get(assigned.name) == assigned.function.id, listed


@only("nvme")
@pytest.mark.negative_control("LIF-32")
def test_a_listing_without_the_function_is_noticed(assigned: Assigned) -> None:
    """A tree without the device fails the check."""
    listing = assigned.machine.qmp.hmp("info qtree").replace('id "nvme"', 'id "gone"')

    with must_fail():
        check_listed(assigned, listing)
