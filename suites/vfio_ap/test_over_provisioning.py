"""Ids that the host does not have yet, or has no longer (vfio-ap.rst, over-provisioning)."""

from __future__ import annotations

import pytest

from harness.ap.matrix_device import MatrixDevice
from harness.ap.workbench import Workbench
from harness.testing import must_fail


def check_matrices(device: MatrixDevice, assigned: int, guests: tuple[str, ...]) -> None:
    """So many queues are assigned, and the guest gets these."""
    assert (len(device.matrix), device.guest_matrix) == (assigned, guests), (
        f"matrix {' '.join(device.matrix)}, guest_matrix {' '.join(device.guest_matrix)}"
    )


@pytest.fixture
def nine(freed: Workbench) -> Workbench:
    """Adapter 9 is free, but not there."""
    freed.free(9)
    return freed


@pytest.mark.rule("AP-13")
def test_an_absent_adapter_can_be_assigned(nine: Workbench) -> None:
    """An adapter that is not there is assigned; the guest does not get it."""
    device = nine.device().configure(adapters=(5, 9), domains=(4,))

    check_matrices(device, 2, ("05.0004",))


@pytest.mark.rule("AP-13")
def test_an_adapter_that_arrives_is_plugged(nine: Workbench) -> None:
    """When the adapter arrives its queues are the guest's, without a word from anybody."""
    device = nine.device().configure(adapters=(5, 9), domains=(4,))
    nine.plug(9)

    check_matrices(device, 2, ("05.0004", "09.0004"))


@pytest.mark.negative_control("AP-13")
def test_an_adapter_too_old_is_not_plugged(nine: Workbench) -> None:
    """A CEX3 arrives: no driver takes it, so the guest does not get it."""
    device = nine.device().configure(adapters=(5, 9), domains=(4,))
    nine.plug(9, hwtype=9)

    with must_fail():
        check_matrices(device, 2, ("05.0004", "09.0004"))


@pytest.mark.rule("AP-13")
def test_a_domain_that_arrives_is_plugged(freed: Workbench) -> None:
    """When a domain arrives its queues are the guest's."""
    device = freed.device().configure(adapters=(5, 6), domains=(4, 0x20))
    freed.set_domains([*freed.domains, 0x20])

    check_matrices(device, 4, ("05.0004", "05.0020", "06.0004", "06.0020"))


def test_adapter_and_domain_may_arrive_together(nine: Workbench) -> None:
    """Both at once: the whole new cross is the guest's."""
    device = nine.device().configure(adapters=(5, 9), domains=(4, 0x20))
    nine.plug(9, domains=[*nine.domains, 0x20])

    check_matrices(device, 4, ("05.0004", "05.0020", "09.0004", "09.0020"))


def test_an_adapter_that_leaves_is_unplugged(freed: Workbench) -> None:
    """When an adapter leaves the host it leaves the guest; the assignment stays."""
    device = freed.device().configure(adapters=(5, 6), domains=(4,))
    freed.unplug(6)

    check_matrices(device, 2, ("05.0004",))


def test_an_adapter_that_returns_is_plugged_again(freed: Workbench) -> None:
    """When it comes back the guest has it again."""
    device = freed.device().configure(adapters=(5, 6), domains=(4,))
    freed.unplug(6)
    freed.plug(6)

    check_matrices(device, 2, ("05.0004", "06.0004"))


def test_a_domain_that_leaves_takes_nothing_with_it(freed: Workbench) -> None:
    """A domain that leaves the host leaves the guest; other domains stay."""
    device = freed.device().configure(adapters=(5, 6), domains=(4, 0x47))
    freed.set_domains([4, 0xAB, 0xFF])

    check_matrices(device, 4, ("05.0004", "06.0004"))


def test_a_card_that_arrives_for_the_host_is_not_plugged(freed: Workbench) -> None:
    """Adapter 9 is the host's: a device that names it alone does not get it."""
    device = freed.device().configure(adapters=(9,))
    freed.plug(9)

    assert (device.guest_matrix, freed.bus.driver("09.0004")) == (("09.",), "cex4queue")
