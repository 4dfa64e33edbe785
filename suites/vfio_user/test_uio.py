"""UIO and a pin that cannot be silenced: no emulated device has one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.guest.keys import RunKey
from harness.host.virtual import VirtualHost
from harness.lab.parts import Parts
from harness.lab.plugged import Seat
from harness.lab.vfio_user import Stage, open_device_host
from harness.model.pci import Bdf
from harness.testing import must_fail
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
def pins(
    device_parts: Parts, run_key: RunKey, shared_evidence: Callable[[str], Path]
) -> Iterator[Stage]:
    """A virtual host, no guest in it, with such a device and one that can be silenced."""
    place = shared_evidence("pins")
    host = open_device_host(device_parts, key=run_key, evidence=place)
    with contextlib.closing(Stage(host, device_parts.l0_qemu.version)) as stage:
        stage.plug(Seat("loud", Loud(), "rp0"), Seat("quiet", Shades(), "rp1"))
        yield stage


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
def test_a_pin_that_cannot_be_silenced_is_refused(pins: Stage) -> None:
    """UIO refuses a function whose interrupt pin has no working disable."""
    check_refused(*given_to_uio(pins.host, pins.plugged["loud"].bdf))


@pytest.mark.negative_control("UIO-05")
def test_a_pin_that_can_be_silenced_is_noticed(pins: Stage) -> None:
    """The same device with a working disable is taken, and the check fails."""
    with must_fail():
        check_refused(*given_to_uio(pins.host, pins.plugged["quiet"].bdf))
