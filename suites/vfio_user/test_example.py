"""The example device, ``examples/doorbell.py``, driven by a real guest: all of it in one place.

A driver in user space of the virtual host writes a text where the device may reach it, rings,
waits for the interrupt, and finds the text in capitals.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.device.device import Device
from harness.guest.vfio_driver import VfioDriver, drive
from harness.lab.plugged import Plugged, Seat
from harness.testing import must_fail, skip
from suites.vfio_user.conftest import Prepared

EXAMPLE = Path(__file__).parents[2] / "examples/doorbell.py"
ADDRESS, LENGTH, DOORBELL = 0x00, 0x08, 0x10
IOVA = 0x7000
TEXT = b"what is trapped arrives"


def load(path: Path) -> type[Device]:
    """Return the device class of an example."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: type[Device] = module.Doorbell
    return found


@pytest.fixture(scope="module")
def doorbell(host_stage: Prepared) -> Plugged:
    """The example device in the host."""
    if not EXAMPLE.is_file():
        skip(f"{EXAMPLE.name} is not installed", enabled_by="a checkout")
    (found,) = host_stage.stage.plug(Seat("doorbell", load(EXAMPLE)(), "rp6"))
    return found


@pytest.fixture
def driver(doorbell: Plugged, host_stage: Prepared) -> Iterator[VfioDriver]:
    """A driver for it that listens, and has told it where the text is."""
    host = host_stage.stage.host
    with host.bound(doorbell.bdf), drive(host, doorbell.bdf) as found:
        found.map(IOVA)
        found.put(IOVA, TEXT)
        found.interrupts("msix", 1)
        found.write(0, ADDRESS, IOVA, width=8)
        found.write(0, LENGTH, len(TEXT))
        yield found


def check_done(driver: VfioDriver, *, timeout: float = 5) -> None:
    """The interrupt came, and the text is in capitals."""
    came = driver.wait(timeout=timeout)
    text = driver.get(IOVA, len(TEXT))
    assert (came, text) == (1, TEXT.upper()), f"{came} interrupts, {text!r}"


def test_guest_sees_the_device(doorbell: Plugged) -> None:
    """The guest sees the function that the example declares."""
    function = doorbell.function()

    assert (function.id, function.class_code) == (doorbell.device.id, doorbell.device.class_code)


def test_ringing_it_does_the_work(doorbell: Plugged, driver: VfioDriver) -> None:
    """Address, length, doorbell, DMA, interrupt: one message for each register that is written."""
    before = doorbell.served.accesses.count(0, operation="write")
    work = driver.read(0, DOORBELL)

    driver.write(0, DOORBELL, 1)

    check_done(driver)
    assert doorbell.served.accesses.count(0, operation="write") == before + 1
    assert driver.read(0, DOORBELL) == work + 1


def test_its_counter_is_read_without_a_message(doorbell: Plugged, driver: VfioDriver) -> None:
    """The page that the guest maps shows how often work was done, and the device is not asked."""
    driver.write(0, DOORBELL, 1)
    check_done(driver)
    work = driver.read(0, DOORBELL)

    assert driver.read(2, 0) == work
    assert doorbell.served.accesses.count(2) == 0


def test_it_does_nothing_without_bus_mastering(driver: VfioDriver) -> None:
    """A driver that took bus mastering away gets neither the text nor the interrupt."""
    driver.master(False)
    driver.write(0, DOORBELL, 1)

    with must_fail():
        check_done(driver, timeout=0.05)
    assert driver.get(IOVA, len(TEXT)) == TEXT


def test_a_reset_makes_it_forget(doorbell: Plugged, driver: VfioDriver) -> None:
    """Function Level Reset reaches it, and it forgets address and length."""
    before = doorbell.device.resets["flr"]

    driver.reset()

    assert doorbell.device.resets["flr"] == before + 1, doorbell.device.resets
    assert (driver.read(0, ADDRESS), driver.read(0, LENGTH)) == (0, 0)
