"""The device by its own file and iommufd (drivers/vfio/device_cdev.c, Linux 6.6)."""

from __future__ import annotations

import pytest

from harness.ap.matrix_device import MatrixDevice
from harness.ap.workbench import Workbench
from harness.machine.command import Device
from harness.machine.machine import Machine
from harness.testing import must_fail
from suites.vfio_ap.test_qemu import check_in_use


@pytest.fixture
def device(by_file: Workbench) -> MatrixDevice:
    """A device with two queues, on a host whose vfio has files of devices."""
    return by_file.device().configure(adapters=(5,), domains=(4, 0x47))


def test_the_device_has_a_file(device: MatrixDevice) -> None:
    """Each matrix device has a file of its own in /dev/vfio/devices."""
    assert device.cdev.startswith("vfio")


def test_the_device_opens_by_file(by_file: Workbench, device: MatrixDevice) -> None:
    """File, KVM, iommufd, address space: the queues are in use."""
    by_file.client().open_by_file(device)

    assert by_file.bus.status("05.0004") == "in use"


def test_the_device_wants_a_virtual_machine(by_file: Workbench, device: MatrixDevice) -> None:
    """Bound to an iommufd without KVM the device does not open: EINVAL."""
    client = by_file.client()
    client.open_file(device)

    assert client.ask("bind").error == "EINVAL"


def test_the_device_is_the_same(by_file: Workbench, device: MatrixDevice) -> None:
    """GET_INFO says what it says by group."""
    client = by_file.client()
    client.open_by_file(device)
    info = client.do("info")

    assert (info["flags"], info["regions"]) == ("0x21", "0")


def test_a_reset_reaches_every_queue(by_file: Workbench, device: MatrixDevice) -> None:
    """VFIO_DEVICE_RESET zeroizes each queue of the device."""
    client = by_file.client()
    client.open_by_file(device)
    mark = by_file.instruction_mark()
    error = client.reset()

    assert (error, by_file.zapped_since(mark)) == ("", ["05.0004", "05.0047"])


def test_letting_go_of_the_address_space_keeps_the_device(
    by_file: Workbench, device: MatrixDevice
) -> None:
    """Detached from its address space the device is still the machine's."""
    client = by_file.client()
    client.open_by_file(device)
    client.do("detach")

    assert by_file.bus.status("05.0004") == "in use"


def test_closing_frees_the_queues(by_file: Workbench, device: MatrixDevice) -> None:
    """When the file is closed the queues are only assigned."""
    client = by_file.client()
    client.open_by_file(device)
    client.do("close")

    assert by_file.bus.status("05.0004") == "assigned"


@pytest.mark.rule("AP-17")
@pytest.mark.negative_control("AP-17")
def test_qemu_opens_the_device_by_file(
    by_file: Workbench, cdev_machine: Machine, device: MatrixDevice
) -> None:
    """``device_add`` with ``iommufd=`` opens the device's own file: its queues are in use."""
    with must_fail():
        check_in_use(by_file, *device.matrix)

    cdev_machine.add_device(
        Device("vfio-ap", "ap0", options={"sysfsdev": device.path, "iommufd": "io0"})
    )

    check_in_use(by_file, *device.matrix)
