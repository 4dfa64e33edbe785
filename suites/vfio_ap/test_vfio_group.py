"""The device as a program gets it: group, container, KVM (vfio_ap_ops.c, ioctls)."""

from __future__ import annotations

import pytest

from harness.ap.matrix_device import MatrixDevice
from harness.ap.vfio_client import VfioClient
from harness.ap.workbench import Workbench
from harness.testing import must_fail
from harness.wait import wait_until


@pytest.fixture
def device(freed: Workbench) -> MatrixDevice:
    """A device with one queue."""
    return freed.device().configure(adapters=(5,), domains=(4, 0x47))


@pytest.fixture
def client(freed: Workbench) -> VfioClient:
    """A program that has nothing yet."""
    return freed.client()


def test_the_device_wants_a_virtual_machine(device: MatrixDevice, client: VfioClient) -> None:
    """Without KVM the device cannot be opened: EINVAL."""
    client.open_group(device)

    assert client.take(device) == "EINVAL"


def test_the_device_opens_in_a_virtual_machine(device: MatrixDevice, client: VfioClient) -> None:
    """With the group told to KVM the device opens."""
    client.open_group(device)
    client.make_machine()

    assert client.take(device) == ""


def test_a_group_has_one_user(freed: Workbench, device: MatrixDevice, client: VfioClient) -> None:
    """A second program cannot open the group: EBUSY."""
    client.open(device)

    assert freed.client().ask(f"group /dev/vfio/{device.group}").error == "EBUSY"


def test_a_machine_has_one_matrix_device(
    freed: Workbench, device: MatrixDevice, client: VfioClient
) -> None:
    """A second matrix device in the same virtual machine is refused: EPERM."""
    other = freed.device().configure(adapters=(6,), domains=(4,))
    client.open(device)

    assert client.take_second(other) == "EPERM"


def test_the_device_is_an_ap_device(device: MatrixDevice, client: VfioClient) -> None:
    """GET_INFO says AP and RESET; the device has no regions."""
    client.open(device)
    info = client.do("info")

    assert (info["flags"], info["regions"]) == ("0x21", "0")


def test_the_device_asks_to_be_let_go(device: MatrixDevice, client: VfioClient) -> None:
    """Interrupt 0 is the request: one eventfd."""
    client.open(device)

    assert client.do("irq 0") == {"flags": "0x1", "count": "1"}


def test_there_are_as_many_interrupts_as_told(device: MatrixDevice, client: VfioClient) -> None:
    """The first index after those of GET_INFO is EINVAL."""
    client.open(device)
    count = client.do("info")["irqs"]

    assert client.ask(f"irq {count}").error == "EINVAL"


def test_there_are_no_regions_to_ask_for(device: MatrixDevice, client: VfioClient) -> None:
    """GET_REGION_INFO is refused: by the driver (EOPNOTSUPP), in Linux 7.2 by vfio (EINVAL)."""
    client.open(device)

    assert client.ask("region 0").error in ("EOPNOTSUPP", "EINVAL")


def test_a_reset_reaches_every_queue(
    freed: Workbench, device: MatrixDevice, client: VfioClient
) -> None:
    """VFIO_DEVICE_RESET zeroizes each queue of the device."""
    client.open(device)
    mark = freed.instruction_mark()
    error = client.reset()

    assert (error, freed.zapped_since(mark)) == ("", ["05.0004", "05.0047"])


def test_a_reset_that_fails_is_told(
    freed: Workbench, device: MatrixDevice, client: VfioClient
) -> None:
    """A reset that ends with an unknown code is EIO."""
    client.open(device)
    freed.fault("05.0004", 0x42, instruction="ZAPQ", times=1)

    assert client.reset() == "EIO"


def test_closing_resets_every_queue(
    freed: Workbench, device: MatrixDevice, client: VfioClient
) -> None:
    """Letting go of the device zeroizes its queues."""
    client.open(device)
    mark = freed.instruction_mark()
    client.close_device()

    assert freed.zapped_since(mark) == ["05.0004", "05.0047"]


# -- removal while it is open -----------------------------------------------------------------

ASKED = "Relaying device request to user (#0)"
NOBODY_TO_ASK = "No device request registered, blocked until released by user"


def check_waits(freed: Workbench, device: MatrixDevice, client: VfioClient) -> None:
    """``remove`` asks the user of the device, and ends only when it has let go."""
    with freed.removing(device) as removal:
        wait_until(
            "a request of the device, or its end",
            lambda: client.requests() or removal.done,
            timeout=20,
        )
        waiting = not removal.done
        client.close()
        found = waiting, removal.wait()
    assert found == (True, ""), f"it waited: {waiting}, and ended with {found[1] or 'no error'}"


@pytest.mark.rule("AP-15")
def test_removal_waits_for_the_user(
    freed: Workbench, device: MatrixDevice, client: VfioClient
) -> None:
    """``remove`` of a device that is open asks for it and waits."""
    client.open(device)
    client.do("signal 0")

    check_waits(freed, device, client)
    assert not device.exists


def check_blocked(freed: Workbench, device: MatrixDevice, client: VfioClient) -> None:
    """``remove`` waits for the user of the device; the kernel says that it can ask nobody."""
    mark = freed.log_mark()
    with freed.removing(device) as removal:
        wait_until(
            "a word of the kernel on requests, or the end",
            lambda: removal.done or "device request" in freed.log_since(mark).lower(),
            timeout=20,
        )
        waiting, log = not removal.done, freed.log_since(mark)
        client.close()
        found = waiting, removal.wait()
    assert found == (True, ""), f"it waited: {waiting}, and ended with {found[1] or 'no error'}"
    assert NOBODY_TO_ASK in log, f"no {NOBODY_TO_ASK!r} in:\n{log}"


@pytest.mark.rule("AP-15")
@pytest.mark.negative_control("AP-15")
def test_a_request_is_told(freed: Workbench, device: MatrixDevice, client: VfioClient) -> None:
    """The kernel says that it has asked the user, not that it can ask nobody."""
    client.open(device)
    client.do("signal 0")
    mark = freed.log_mark()

    with must_fail():
        check_blocked(freed, device, client)
    assert f"vfio_ap_mdev {device.uuid}: {ASKED}" in freed.log_since(mark)


@pytest.mark.rule("AP-15")
def test_a_user_that_does_not_listen_is_told(
    freed: Workbench, device: MatrixDevice, client: VfioClient
) -> None:
    """Without a request interrupt ``remove`` waits all the same, and the kernel says so."""
    client.open(device)

    check_blocked(freed, device, client)


@pytest.mark.negative_control("AP-15")
def test_a_device_that_was_let_go_is_noticed(
    freed: Workbench, device: MatrixDevice, client: VfioClient
) -> None:
    """``remove`` of a device whose user has let go asks nobody and ends, and the check fails."""
    client.open(device)
    client.do("signal 0")
    client.close_device()

    with must_fail():
        check_waits(freed, device, client)
