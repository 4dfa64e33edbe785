"""Changes of a matrix device while a guest has it (vfio-ap.rst, hot plug)."""

from __future__ import annotations

import pytest

from harness.ap.matrix_device import MatrixDevice
from harness.ap.workbench import Workbench
from harness.testing import must_fail


@pytest.fixture
def used(freed: Workbench) -> MatrixDevice:
    """A device with adapters 5, 6 and domains 4, 0xab in the hands of a virtual machine."""
    device = freed.device().configure(adapters=(5, 6), domains=(4, 0xAB))
    freed.client().open(device)
    return device


def check_in_use(ap: Workbench, *queues: str) -> None:
    """These queues, and no other, are in use."""
    seen = tuple(state.name for state in ap.bus.queues.values() if state.status == "in use")
    assert seen == queues, f"in use: {' '.join(seen) or 'none'}"


@pytest.mark.rule("AP-14")
def test_queues_of_a_guest_are_in_use(freed: Workbench, used: MatrixDevice) -> None:
    """A queue says ``in use`` while a machine with it is open."""
    check_in_use(freed, *used.matrix)


@pytest.mark.negative_control("AP-14")
def test_an_assigned_queue_is_not_in_use(freed: Workbench) -> None:
    """Without a machine the queues are only assigned."""
    device = freed.device().configure(adapters=(5,), domains=(4,))

    with must_fail():
        check_in_use(freed, *device.matrix)


@pytest.mark.rule("AP-14")
def test_an_adapter_is_unplugged(freed: Workbench, used: MatrixDevice) -> None:
    """Taking an adapter away while a guest runs is accepted and unplugs its queues."""
    error = used.unassign_adapter(6)

    assert error == ""
    check_in_use(freed, "05.0004", "05.00ab")


@pytest.mark.rule("AP-14")
def test_an_adapter_is_plugged(freed: Workbench, used: MatrixDevice) -> None:
    """Assigning an adapter while a guest runs plugs its queues."""
    used.unassign_adapter(6)
    error = used.assign_adapter(6)

    assert error == ""
    check_in_use(freed, "05.0004", "05.00ab", "06.0004", "06.00ab")


@pytest.mark.rule("AP-14")
def test_a_domain_is_plugged_and_unplugged(freed: Workbench, used: MatrixDevice) -> None:
    """The same holds for domains."""
    used.assign_domain(0x47)
    used.unassign_domain(4)
    used.unassign_domain(0xAB)

    check_in_use(freed, "05.0047", "06.0047")


def test_unplugged_queues_are_zeroized(freed: Workbench, used: MatrixDevice) -> None:
    """Queues that leave a running guest are reset."""
    mark = freed.instruction_mark()
    used.unassign_adapter(6)

    assert freed.zapped_since(mark) == ["06.0004", "06.00ab"]


@pytest.mark.rule("AP-12", "AP-14")
def test_an_unbound_queue_unplugs_its_adapter(freed: Workbench, used: MatrixDevice) -> None:
    """A queue taken from vfio_ap unplugs every queue of its adapter; bound, it plugs them."""
    freed.bus.unbind("05.0004")
    without = used.guest_matrix
    freed.bus.bind("05.0004")

    assert without == ("06.0004", "06.00ab")
    check_in_use(freed, *used.matrix)


def test_an_adapter_that_leaves_the_host_leaves_the_guest(
    freed: Workbench, used: MatrixDevice
) -> None:
    """An adapter that the partition loses is unplugged from the running guest."""
    freed.unplug(6)

    check_in_use(freed, "05.0004", "05.00ab")
    assert used.guest_matrix == ("05.0004", "05.00ab")


@pytest.mark.rule("AP-13")
def test_an_adapter_that_returns_is_plugged(freed: Workbench, used: MatrixDevice) -> None:
    """When it comes back the running guest has it again."""
    freed.unplug(6)
    freed.plug(6)

    check_in_use(freed, *used.matrix)


def test_a_domain_that_leaves_the_host_leaves_the_guest(
    freed: Workbench, used: MatrixDevice
) -> None:
    """A domain that the partition loses is unplugged; the adapters stay."""
    freed.set_domains([4, 0x47, 0xFF])

    assert used.guest_matrix == ("05.0004", "06.0004")


@pytest.mark.rule("AP-06")
def test_a_used_queue_is_not_given_back(freed: Workbench, used: MatrixDevice) -> None:
    """apmask does not take a queue from a running guest: EBUSY."""
    assert freed.bus.write("apmask", "+5") == "EBUSY"
    check_in_use(freed, *used.matrix)


def test_ap_config_plugs_all_at_once(freed: Workbench, used: MatrixDevice) -> None:
    """ap_config replaces what a running guest has."""
    error = used.write("ap_config", "0x04,0x0000000000000000010000000000000000,0x")

    assert error == ""
    check_in_use(freed, "05.0047")


@pytest.mark.rule("AP-25")
def test_closing_the_device_frees_its_queues(freed: Workbench) -> None:
    """When the machine lets go of the device no queue is in use; the assignment stays."""
    device = freed.device().configure(adapters=(5,), domains=(4,))
    client = freed.client()
    client.open(device)
    client.close_device()

    check_in_use(freed)
    assert device.matrix == ("05.0004",)


@pytest.mark.negative_control("AP-25")
def test_an_open_device_keeps_its_queues(freed: Workbench, used: MatrixDevice) -> None:
    """While the device is open its queues are in use."""
    with must_fail():
        check_in_use(freed)
