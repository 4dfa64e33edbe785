"""Queues and drivers: two pools, one by one, and driver_override (ap_bus.c)."""

from __future__ import annotations

import pytest

from harness.ap.workbench import Workbench


def test_a_queue_of_the_host_is_not_for_vfio_ap(ap: Workbench) -> None:
    """vfio_ap cannot bind a queue whose bits are both set: ENODEV."""
    ap.bus.unbind("05.0004", driver="cex4queue")

    assert ap.bus.bind("05.0004") == "ENODEV"


def test_a_freed_queue_is_not_for_the_host(freed: Workbench) -> None:
    """A default driver cannot bind a queue that is free: ENODEV."""
    freed.bus.unbind("05.0004")

    assert freed.bus.bind("05.0004", driver="cex4queue") == "ENODEV"


def test_a_bound_queue_is_busy(freed: Workbench) -> None:
    """A queue that another driver has cannot be bound: EBUSY."""
    assert freed.bus.bind("05.0004", driver="cex4queue") == "EBUSY"


def test_what_a_driver_does_not_have_is_not_unbound(ap: Workbench) -> None:
    """A queue of the default driver cannot be taken from vfio_ap: ENODEV."""
    assert ap.bus.unbind("05.0004") == "ENODEV"


def test_an_unbound_queue_has_no_status(freed: Workbench) -> None:
    """``status`` goes with vfio_ap."""
    freed.bus.unbind("05.0004")

    assert (freed.bus.driver("05.0004"), freed.bus.status("05.0004")) == ("", "")


def test_unbinding_resets_the_queue(freed: Workbench) -> None:
    """A queue that leaves vfio_ap is zeroized, assigned or not."""
    mark = freed.instruction_mark()
    freed.bus.unbind("05.0004")

    assert freed.zapped_since(mark) == ["05.0004"]


def test_a_queue_bound_again_belongs_to_its_device(freed: Workbench) -> None:
    """The assignment is of ids: a queue that comes back is assigned as before."""
    freed.device().configure(adapters=(5,), domains=(4,))
    freed.bus.unbind("05.0004")
    freed.bus.bind("05.0004")

    assert freed.bus.status("05.0004") == "assigned"


def test_the_module_comes_and_goes_without_devices(freed: Workbench) -> None:
    """Without a matrix device vfio_ap can be unloaded; loaded again it has the free queues."""
    freed.unload_vfio_ap()
    without = freed.bus.driver("05.0004")
    freed.load_vfio_ap()

    assert (without, freed.bus.driver("05.0004")) == ("", "vfio_ap")


@pytest.mark.usefixtures("needs_driver_override")
class TestDriverOverride:
    """Linux 6.19: queues given to a driver one by one, masks all ones."""

    def test_one_queue_goes_to_vfio_ap(self, ap: Workbench) -> None:
        """driver_override gives one queue to vfio_ap while the masks are all ones."""
        error = ap.override("05.0004", "vfio_ap")
        queues = ap.bus.queues

        assert error == ""
        assert [queues[name].driver for name in ("05.0004", "05.0047")] == [
            "vfio_ap",
            "cex4queue",
        ]

    def test_an_overridden_queue_can_be_assigned(self, ap: Workbench) -> None:
        """A matrix device may have a queue that an override gave to vfio_ap."""
        ap.override("05.0004", "vfio_ap")
        device = ap.device().configure(adapters=(5,), domains=(4,))

        assert device.guest_matrix == ("05.0004",)

    def test_masks_are_fixed_while_a_queue_is_overridden(self, ap: Workbench) -> None:
        """A mask cannot be written while an override is active: EINVAL."""
        ap.override("05.0004", "vfio_ap")

        assert ap.bus.write("apmask", "-6") == "EINVAL"

    def test_overrides_need_full_masks(self, freed: Workbench) -> None:
        """A queue cannot be overridden while a mask is not all ones: EINVAL."""
        assert freed.override("04.0004", "vfio_ap") == "EINVAL"
