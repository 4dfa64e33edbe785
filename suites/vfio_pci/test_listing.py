"""How QEMU lists an assigned function."""

from collections.abc import Collection
from dataclasses import replace

import pytest

from harness.lab.assigned import Assigned
from harness.model.pci import PciId
from harness.model.pci_listing import QueryPciFunction
from harness.testing import must_fail, only


def check_listed(assigned: Assigned, listing: str) -> None:
    """The listing names the device by driver and id."""
    wanted = f'dev: vfio-pci, id "{assigned.name}"'
    assert wanted in listing, f"no {wanted!r} among {listing.count('dev:')} devices of info qtree"


@pytest.mark.rule("LIF-32")
def test_qtree_shows_the_assigned_function(assigned: Assigned) -> None:
    """``info qtree`` shows an assigned function as vfio-pci, with its id."""
    check_listed(assigned, assigned.machine.qmp.hmp("info qtree"))


def check_ids(listed: Collection[QueryPciFunction], name: str, wanted: PciId) -> None:
    """One function is listed under that name, with these ids."""
    found = [function.id for function in listed if function.qdev_id == name]
    assert found == [wanted], f"{name} is listed with the ids {found}"


@pytest.mark.rule("LIF-32")
def test_query_pci_shows_the_assigned_function(assigned: Assigned) -> None:
    """``query-pci`` lists an assigned function under its id, with the ids of the hardware."""
    check_ids(assigned.machine.functions(), assigned.name, assigned.function.id)


@pytest.mark.full
@only("nvme")
@pytest.mark.negative_control("LIF-32")
def test_functions_that_are_not_assigned_are_noticed(assigned: Assigned) -> None:
    """Those of the machine itself are not the assigned one, and have other ids."""
    listed = assigned.machine.functions()

    with must_fail():
        check_ids([f for f in listed if f.qdev_id != "nvme"], "nvme", assigned.function.id)
    with must_fail():
        check_ids([replace(f, qdev_id="nvme") for f in listed], "nvme", assigned.function.id)


@only("nvme")
@pytest.mark.negative_control("LIF-32")
def test_a_listing_without_the_function_is_noticed(assigned: Assigned) -> None:
    """A tree without the device fails the check."""
    listing = assigned.machine.qmp.hmp("info qtree").replace('id "nvme"', 'id "gone"')

    with must_fail():
        check_listed(assigned, listing)
