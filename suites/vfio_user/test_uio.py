"""UIO and a pin that cannot be silenced: no emulated device has one."""

from __future__ import annotations

import pytest

from harness.host.virtual import VirtualHost
from harness.lab.plugged import Plugged, Seat
from harness.model.pci import Bdf
from harness.testing import must_fail
from suites.vfio_user.conftest import Prepared
from suites.vfio_user.devices import Shades

pytestmark = pytest.mark.full

UIO = "uio_pci_generic"
HIGH_BYTE = 0x05
INTX_DISABLE = 0x04
"""Of the upper byte of the command register (PCIe 6.0, 7.5.1.1.3)."""


class Loud(Shades):
    """Its interrupt pin works, but INTx Disable is read-only, as before PCI 2.3."""

    def __init__(self) -> None:
        super().__init__()
        self.config.writable[HIGH_BYTE] &= ~INTX_DISABLE


@pytest.fixture(scope="module")
def loud(host_stage: Prepared) -> Plugged:
    """Such a device in the virtual host."""
    (plugged,) = host_stage.stage.plug(Seat("loud", Loud(), "rp6"))
    return plugged


def given_to_uio(host: VirtualHost, bdf: Bdf) -> tuple[str | None, str]:
    """Offer *bdf* to UIO; return who has it then, and what the kernel said of the offer."""
    path = f"/sys/bus/pci/devices/{bdf}"
    host.run(f"modprobe {UIO}; echo {UIO} > {path}/driver_override")
    try:
        said = host.run(f"echo {bdf} > /sys/bus/pci/drivers/{UIO}/bind", check=False).stderr
        return host.function(bdf).driver, said
    finally:
        host.run(
            f"[ -e {path}/driver ] && echo {bdf} > {path}/driver/unbind;"
            f" echo > {path}/driver_override"
        )


def check_refused(driver: str | None, said: str) -> None:
    """UIO does not have it: no such device, says its driver."""
    assert (driver, "No such device" in said) == (None, True), f"driver {driver}: {said}"


@pytest.mark.rule("UIO-05")
def test_a_pin_that_cannot_be_silenced_is_refused(host_stage: Prepared, loud: Plugged) -> None:
    """UIO refuses a function whose interrupt pin has no working disable."""
    check_refused(*given_to_uio(host_stage.stage.host, loud.bdf))


@pytest.mark.negative_control("UIO-05")
def test_a_pin_that_can_be_silenced_is_noticed(host_stage: Prepared) -> None:
    """The same device with a working disable is taken, and the check fails."""
    bdf = host_stage["worker"].bdf

    with must_fail():
        check_refused(*given_to_uio(host_stage.stage.host, bdf))
