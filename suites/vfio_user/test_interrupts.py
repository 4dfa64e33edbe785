"""Interrupts of a device in Python: MSI-X, MSI and INTx, by the eventfds that QEMU gave it."""

from collections.abc import Iterator

import pytest

from harness.guest.vfio_driver import VfioDriver, drive
from harness.lab.parts import Parts
from harness.lab.plugged import Plugged
from harness.lab.vfio_user import DRIVER
from harness.model.memory_map import Kind
from harness.parse.trace_log import TraceEvent
from harness.testing import must_fail, skip
from suites.vfio_user.conftest import Prepared
from suites.vfio_user.devices import PAGE

COUNT = 20
QUIET = 0.05
"""Seconds in which an interrupt must not come."""
TIMEOUT = "x-intx-mmap-timeout-ms"
LONGER_THAN_THE_TIMER = "1.3"
"""Seconds; it is 1.1 where there is one."""


def check_came(driver: VfioDriver, vector: int, times: int, *, timeout: float = 5) -> None:
    """The vector came so often."""
    found = driver.wait(vector, timeout=timeout)
    assert found == times, f"vector {vector} came {found} times, not {times}"


@pytest.mark.parametrize("vector", [0, 3])
@pytest.mark.rule("TRP-20", "INT-01")
def test_msix_of_the_device_arrives(worker: Plugged, driver: VfioDriver, vector: int) -> None:
    """An MSI-X of the device reaches the driver in the guest, at that vector alone."""
    driver.interrupts("msix", 4)

    worker.device.interrupt(vector)

    check_came(driver, vector, 1)
    assert driver.wait(1, timeout=QUIET) == 0


@pytest.mark.negative_control("TRP-20", "INT-01")
def test_interrupt_that_did_not_come_is_noticed(worker: Plugged, driver: VfioDriver) -> None:
    """The check fails for another vector than was sent."""
    driver.interrupts("msix", 4)
    worker.device.interrupt(2)
    driver.wait(2)

    with must_fail():
        check_came(driver, 0, 1, timeout=QUIET)


@pytest.mark.rule("QAT-21")
def test_msi_of_one_vector_arrives(host_stage: Prepared) -> None:
    """The one MSI vector of the QAT-shaped function reaches its driver."""
    vf, host = host_stage["solo"], host_stage.stage.host
    with host.bound(vf.bdf), drive(host, vf.bdf) as driver:
        driver.interrupts("msi", 1)

        vf.device.interrupt()

        check_came(driver, 0, 1)


def check_level(worker: Plugged, driver: VfioDriver, *, timeout: float = 5) -> None:
    """While the line is high the interrupt comes each time the driver listens, then no more."""
    worker.device.line(True)
    came = driver.wait(timeout=timeout), driver.wait(timeout=timeout)
    worker.device.line(False)
    driver.read(0, PAGE)  # as drivers do, and QEMU takes it for the end of the interrupt
    driver.wait(timeout=QUIET)  # one was under way
    assert all(came) and driver.wait(timeout=QUIET) == 0, f"while high {came}"


def test_intx_of_the_device_arrives_by_level(worker: Plugged, driver: VfioDriver) -> None:
    """An INTx of the device reaches its driver as long as the line is high."""
    driver.interrupts("intx", 1)

    check_level(worker, driver)


def test_intx_that_nobody_listens_to_is_noticed(worker: Plugged, driver: VfioDriver) -> None:
    """The check fails for a driver that listens to MSI-X."""
    driver.interrupts("msix", 1)

    with must_fail():
        check_level(worker, driver, timeout=QUIET)


# -- what QEMU does for it --------------------------------------------------------------------


def names_of(events: tuple[TraceEvent, ...]) -> list[str]:
    """Return the names of trace events, in order."""
    return [event.name for event in events]


def check_traced(events: tuple[TraceEvent, ...], *wanted: str) -> None:
    """These events came, in this order."""
    found = [name for name in names_of(events) if name in wanted]
    assert found == list(wanted), f"{names_of(events)}"


@pytest.mark.rule("INT-04")
def test_msix_is_set_up_and_taken_down(worker: Plugged, driver: VfioDriver) -> None:
    """Enabling and disabling MSI-X in the guest enables and disables it at the device."""
    with worker.machine.tracing("vfio_msix_enable", "vfio_msix_disable") as window:
        driver.interrupts("msix", 2)
        driver.interrupts("msix", 0)

    check_traced(window.events, "vfio_msix_enable", "vfio_msix_disable")


@pytest.mark.rule("INT-05")
def test_msi_is_set_up_with_its_vectors(host_stage: Prepared) -> None:
    """Enabling MSI enables it at the device, with the number of vectors."""
    vf, host = host_stage["solo"], host_stage.stage.host
    with (
        host.bound(vf.bdf),
        drive(host, vf.bdf) as driver,
        vf.machine.tracing("vfio_msi_enable", "vfio_msix_enable") as window,
    ):
        driver.interrupts("msi", 1)

    check_traced(window.events, "vfio_msi_enable")
    assert "Enabled 1 MSI vectors" in window.events[0].arguments, window.events


@pytest.mark.negative_control("INT-04", "INT-05")
def test_other_interrupts_are_not_taken_for_these(worker: Plugged, driver: VfioDriver) -> None:
    """The checks fail for the other kind of interrupt."""
    with worker.machine.tracing("vfio_msi_enable", "vfio_msix_enable") as window:
        driver.interrupts("msix", 1)

    with must_fail():
        check_traced(window.events, "vfio_msi_enable")
    with must_fail():
        check_traced(window.events, "vfio_msix_enable", "vfio_msix_disable")


# -- INTx -------------------------------------------------------------------------------------


def check_intx_mode(events: tuple[TraceEvent, ...], plugged: Plugged) -> None:
    """QEMU enabled INTx of the device when it was plugged."""
    name = f"vfio-user:{plugged.served.socket}"
    assert any(name in event.arguments for event in events), f"not among {events}"


@pytest.mark.rule("INT-06")
def test_device_with_a_pin_starts_in_intx_mode(guest_stage: Prepared) -> None:
    """At its start a device with an interrupt pin is in INTx mode."""
    check_intx_mode(guest_stage.events, guest_stage["shades"])


@pytest.mark.negative_control("INT-06")
def test_device_without_a_pin_is_not_taken_for_one(guest_stage: Prepared) -> None:
    """The check fails for a device that has no pin."""
    with must_fail():
        check_intx_mode(guest_stage.events, guest_stage["closed"])


def mapped_rows(plugged: Plugged) -> list[str]:
    """Return the mapped rows of BAR 0."""
    rows = plugged.machine.memory_map().memory.covering(plugged.window(0))
    return [str(row) for row in rows if row.kind is Kind.RAMD]


def check_all_trapped(plugged: Plugged) -> None:
    """Nothing of BAR 0 is mapped; each access to what was tells the device."""
    touched, mapped = plugged.read(0, 0, count=COUNT), mapped_rows(plugged)
    assert touched.messages == {0: COUNT} and not mapped, f"{touched.explain()}; {mapped}"


@pytest.fixture
def interrupting(guest_stage: Prepared) -> Iterator[Plugged]:
    """A device of the small guest with its INTx line raised; reset afterwards."""
    found = guest_stage["shades"]
    found.device.line(True)
    yield found
    found.device.line(False)
    found.stage.reset(found.bdf)


@pytest.mark.rule("INT-07")
def test_pending_intx_takes_the_mappings_away(interrupting: Plugged) -> None:
    """While INTx is pending every page traps, so that any access can tell its end."""
    check_all_trapped(interrupting)


@pytest.fixture
def without_timer(device_parts: Parts) -> None:
    """The QEMU of the device has no timer that brings mappings back."""
    if device_parts.l0_qemu.features.has_property(DRIVER, TIMEOUT):
        skip(f"{DRIVER} has {TIMEOUT} here", enabled_by="a QEMU without it (11.1)")


@pytest.mark.usefixtures("without_timer")
@pytest.mark.rule("INT-08")
def test_mappings_stay_away_after_intx(interrupting: Plugged) -> None:
    """Without x-intx-mmap-timeout-ms no timer brings the mappings back; a reset does.

    vfio-user-pci of QEMU 11.1 has no such property: docs/findings/vfio-user-intx-mappings.md.
    """
    interrupting.read(0, 0, count=COUNT)
    interrupting.device.line(False)
    interrupting.read(0, PAGE, count=1)  # the guest has seen to it

    interrupting.stage.run(["sleep", LONGER_THAN_THE_TIMER])

    check_all_trapped(interrupting)
    interrupting.stage.reset(interrupting.bdf)
    assert len(mapped_rows(interrupting)) == 2


@pytest.mark.negative_control("INT-07", "INT-08")
def test_mappings_that_are_there_are_noticed(guest_stage: Prepared) -> None:
    """The check fails for a device whose INTx is not pending."""
    with must_fail():
        check_all_trapped(guest_stage["open"])
