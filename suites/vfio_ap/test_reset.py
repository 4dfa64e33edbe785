"""Resets of queues: what vfio_ap does with every answer of the adapter (vfio_ap_ops.c).

ZAPQ is asked for, TAPQ watches it; the answers come from the adapters of the lab.
"""

from __future__ import annotations

import pytest

from harness.ap.matrix_device import MatrixDevice
from harness.ap.workbench import (
    BUSY,
    CHECKSTOPPED,
    DECONFIGURED,
    RESET_IN_PROGRESS,
    Workbench,
)
from harness.testing import must_fail

STRANGE = 0x42


def assigned_again(freed: Workbench, *domains: int) -> MatrixDevice:
    """Return a device of adapter 5 and these; domain 4 was taken away and assigned again."""
    device = freed.device().configure(adapters=(5,), domains=domains)
    device.unassign_domain(4)
    device.assign_domain(4)
    return device


def check_usable(freed: Workbench) -> None:
    """A queue that was taken away and assigned again is the guest's."""
    device = assigned_again(freed, 4)
    assert device.guest_matrix == ("05.0004",), " ".join(device.guest_matrix)


def check_kept(freed: Workbench) -> None:
    """Such a queue is kept from the guest, and with it its adapter."""
    device = assigned_again(freed, 4, 0x47)
    assert device.guest_matrix == (".0004", ".0047"), " ".join(device.guest_matrix)


def test_a_queue_taken_away_is_zeroized(freed: Workbench) -> None:
    """Unassigning a queue that a guest could have resets it."""
    device = freed.device().configure(adapters=(5, 6), domains=(4,))
    mark = freed.instruction_mark()
    device.unassign_domain(4)

    assert freed.zapped_since(mark) == ["05.0004", "06.0004"]


def test_a_reset_under_way_is_waited_for(freed: Workbench) -> None:
    """While TAPQ says "reset in progress" the write does not return."""
    device = freed.device().configure(adapters=(5,), domains=(4,))
    freed.fault("05.0004", RESET_IN_PROGRESS, instruction="TAPQ", times=5)
    mark = freed.instruction_mark()
    device.unassign_domain(4)

    assert freed.count_since(mark, "TAPQ", "05.0004") >= 6


def test_the_wait_is_told(freed: Workbench) -> None:
    """The log says how long was waited for the reset of which queue."""
    device = freed.device().configure(adapters=(5,), domains=(4,))
    freed.fault("05.0004", RESET_IN_PROGRESS, instruction="TAPQ", times=3)
    mark = freed.log_mark()
    device.unassign_domain(4)

    assert "Waited 20ms for reset of queue 05.0004" in freed.log_since(mark)


def test_a_busy_queue_is_reset_again(freed: Workbench) -> None:
    """A ZAPQ that was answered BUSY is given again once the queue is ready."""
    device = freed.device().configure(adapters=(5,), domains=(4,))
    freed.fault("05.0004", BUSY, instruction="ZAPQ", times=1)
    mark = freed.instruction_mark()
    device.unassign_domain(4)

    assert freed.count_since(mark, "ZAPQ", "05.0004") == 2


def test_a_queue_that_was_busy_is_usable(freed: Workbench) -> None:
    """After such a reset a guest can have the queue."""
    freed.fault("05.0004", BUSY, instruction="ZAPQ", times=2)

    check_usable(freed)


@pytest.mark.rule("AP-12")
def test_a_queue_with_a_strange_reset_is_kept_from_guests(freed: Workbench) -> None:
    """A reset that ends with an unknown code takes the adapter from the guest."""
    freed.fault("05.0004", STRANGE, instruction="ZAPQ", times=1)

    check_kept(freed)


@pytest.mark.negative_control("AP-12")
def test_a_good_reset_fails_the_check_of_queues_that_are_kept(freed: Workbench) -> None:
    """After a reset that ends well the queue and its neighbour are the guest's."""
    with must_fail():
        check_kept(freed)


def test_a_strange_reset_is_told(freed: Workbench) -> None:
    """The kernel warns of a code that it does not know, with the queue."""
    device = freed.device().configure(adapters=(5,), domains=(4,))
    freed.fault("05.0004", STRANGE, instruction="ZAPQ", times=1)
    mark = freed.log_mark()
    device.unassign_domain(4)

    assert "PQAP/ZAPQ for 05.0004 failed with invalid rc=66" in freed.log_since(mark)


@pytest.mark.negative_control("AP-12")
def test_a_strange_reset_fails_the_check_of_usable_queues(freed: Workbench) -> None:
    """The check that passes for busy queues fails for this one."""
    freed.fault("05.0004", STRANGE, instruction="ZAPQ", times=1)

    with must_fail():
        check_usable(freed)


def test_a_good_reset_heals(freed: Workbench) -> None:
    """The next reset that ends well makes the queue usable again."""
    freed.fault("05.0004", STRANGE, instruction="ZAPQ", times=1)
    device = freed.device().configure(adapters=(5,), domains=(4,))
    device.unassign_domain(4)
    freed.bus.unbind("05.0004")
    freed.bus.bind("05.0004")
    device.assign_domain(4)

    assert device.guest_matrix == ("05.0004",)


@pytest.mark.rule("AP-12")
@pytest.mark.parametrize("code", [DECONFIGURED, CHECKSTOPPED])
def test_a_queue_that_is_off_is_usable(freed: Workbench, code: int) -> None:
    """A reset answered "deconfigured" or "check-stopped" keeps nobody from having the queue."""
    freed.fault("05.0004", code, instruction="ZAPQ", times=1)

    check_usable(freed)


def test_a_deconfigured_adapter_stays_in_the_guest(freed: Workbench) -> None:
    """A deconfigured adapter stays in guest_matrix."""
    device = freed.device().configure(adapters=(5,), domains=(4,))
    freed.deconfigure(5)

    assert device.guest_matrix == ("05.0004",)


def test_a_checkstopped_adapter_stays_in_the_guest(freed: Workbench) -> None:
    """A check-stopped adapter stays in guest_matrix."""
    device = freed.device().configure(adapters=(5,), domains=(4,))
    freed.checkstop(5)

    assert device.guest_matrix == ("05.0004",)
