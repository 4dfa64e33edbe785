"""``guest_matrix``: what of the assignment a guest gets (vfio_ap_mdev_filter_matrix).

By adapter, not by queue: the hardware knows masks only, so an adapter of which one queue
cannot be passed is left out with all its queues.
"""

from __future__ import annotations

import pytest

from harness.ap.matrix_device import MatrixDevice
from harness.ap.workbench import Workbench
from harness.testing import must_fail


def check_guest(device: MatrixDevice, *queues: str) -> None:
    """A guest gets exactly *queues*."""
    assert device.guest_matrix == queues, " ".join(device.guest_matrix) or "nothing"


def check_within(device: MatrixDevice) -> None:
    """What a guest gets was assigned."""
    extra = set(device.guest_matrix) - set(device.matrix)
    assert not extra, f"in guest_matrix, not in matrix: {' '.join(sorted(extra))}"


class Lying:
    """A device whose guest gets a queue that was never assigned."""

    matrix = ("05.0004",)
    guest_matrix = ("05.0004", "05.0047")


@pytest.mark.rule("AP-12")
def test_all_bound_queues_are_the_guests(freed: Workbench) -> None:
    """If vfio_ap has every queue, guest_matrix is matrix; it is kept without a guest too."""
    device = freed.device().configure(adapters=(5, 6), domains=(4, 0xAB))

    check_guest(device, *device.matrix)


@pytest.mark.rule("AP-12")
def test_one_unbound_queue_takes_its_adapter(freed: Workbench) -> None:
    """A queue taken from vfio_ap takes every queue of its adapter from the guest."""
    device = freed.device().configure(adapters=(5, 6), domains=(4, 0xAB))
    freed.bus.unbind("05.0004")

    check_guest(device, "06.0004", "06.00ab")


@pytest.mark.rule("AP-12")
def test_the_guests_queues_are_among_the_assigned(freed: Workbench) -> None:
    """guest_matrix is a part of matrix, whatever is unbound or absent."""
    freed.free(0x70)
    device = freed.device().configure(adapters=(5, 6, 0x70), domains=(4, 0xAB, 0x30))
    freed.bus.unbind("06.00ab")

    check_within(device)


@pytest.mark.negative_control("AP-12")
def test_a_filter_by_queue_is_noticed(freed: Workbench) -> None:
    """If only the unbound queue were left out, 05.00ab would stay."""
    device = freed.device().configure(adapters=(5, 6), domains=(4, 0xAB))
    freed.bus.unbind("05.0004")

    with must_fail():
        check_guest(device, "05.00ab", "06.0004", "06.00ab")


@pytest.mark.negative_control("AP-12")
def test_a_queue_from_nowhere_is_noticed() -> None:
    """A device that shows its guest more than was assigned fails."""
    with must_fail():
        check_within(Lying())  # type: ignore[arg-type]


def test_a_bound_queue_brings_its_adapter_back(freed: Workbench) -> None:
    """The queue given back to vfio_ap brings every queue of its adapter back."""
    device = freed.device().configure(adapters=(5,), domains=(4, 0xAB))
    freed.bus.unbind("05.0004")
    freed.bus.bind("05.0004")

    check_guest(device, "05.0004", "05.00ab")


def test_a_filtered_adapter_is_reset(freed: Workbench) -> None:
    """The queues that leave the guest with an unbound one are zeroized."""
    freed.device().configure(adapters=(5,), domains=(4, 0xAB))
    mark = freed.instruction_mark()
    freed.bus.unbind("05.0004")

    assert set(freed.zapped_since(mark)) == {"05.0004", "05.00ab"}


def test_absent_adapters_and_domains_are_left_out(freed: Workbench) -> None:
    """Assigned ids that the host does not have are not the guest's."""
    freed.free(0x70)
    device = freed.device().configure(adapters=(5, 0x70), domains=(4, 0x30))

    check_guest(device, "05.0004")


def test_guest_matrix_shows_halves_too(freed: Workbench) -> None:
    """With adapters only, guest_matrix shows prefixes as matrix does."""
    device = freed.device().configure(adapters=(5,))

    check_guest(device, "05.")


def test_all_adapters_filtered_leaves_domains(freed: Workbench) -> None:
    """If every adapter is left out, the domains remain as prefixes."""
    device = freed.device().configure(adapters=(5,), domains=(4, 0xAB))
    freed.bus.unbind("05.0004")

    check_guest(device, ".0004", ".00ab")


def test_the_filter_does_not_look_back(freed: Workbench) -> None:
    """Taking away the domain of the unbound queue does not bring its adapter back by itself."""
    device = freed.device().configure(adapters=(5,), domains=(4, 0xAB))
    freed.bus.unbind("05.0004")
    device.unassign_domain(4)

    check_guest(device, ".00ab")


def test_the_next_assignment_looks_again(freed: Workbench) -> None:
    """The next assignment filters anew, and finds nothing wrong with the adapter."""
    device = freed.device().configure(adapters=(5,), domains=(4, 0xAB))
    freed.bus.unbind("05.0004")
    device.unassign_domain(4)
    device.assign_domain(0x47)

    check_guest(device, "05.0047", "05.00ab")
