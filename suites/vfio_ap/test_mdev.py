"""The life of matrix devices (drivers/vfio/mdev, vfio_ap_ops.c)."""

from __future__ import annotations

import pytest

from harness.ap.matrix_device import UUIDS
from harness.ap.workbench import Workbench

SPARE = UUIDS[-1]


def test_there_is_one_type(ap: Workbench) -> None:
    """The only type is vfio_ap-passthrough, with API vfio-ap and a name for people."""
    names = ("device_api", "name")

    assert [ap.parent.type_attribute(name) for name in names] == [
        "vfio-ap",
        "VFIO AP Passthrough Device",
    ]


def test_devices_are_hardly_limited(ap: Workbench) -> None:
    """available_instances begins with 65536 and goes down by one for each device."""
    before = int(ap.parent.type_attribute("available_instances"))
    ap.device()
    after = int(ap.parent.type_attribute("available_instances"))

    assert (before, after) == (65536, 65535)


def test_a_device_begins_empty(ap: Workbench) -> None:
    """A new device has no adapter, domain or control domain."""
    device = ap.device()
    names = ("matrix", "guest_matrix", "control_domains", "ap_config")

    nothing = "0x" + 64 * "0"
    assert [device.read(name) for name in names] == ["", "", "", ",".join([nothing] * 3)]


@pytest.mark.parametrize(
    "uuid",
    ["", "1", SPARE[:-1], SPARE + "0", SPARE.replace("-", ""), SPARE.replace("7ac3", "7zc3")],
)
def test_what_is_no_uuid_is_refused(ap: Workbench, uuid: str) -> None:
    """``create`` takes 36 characters that are a UUID; anything else is EINVAL."""
    error = ap.parent.try_create(uuid)

    assert (error, ap.parent.uuids) == ("EINVAL", ())


def test_a_uuid_is_used_once(ap: Workbench) -> None:
    """A second device of the same name is EEXIST, and the first stays as it is."""
    device = ap.device().configure(adapters=(5,))
    error = ap.parent.try_create(device.uuid)

    assert (error, device.matrix) == ("EEXIST", ("05.",))


def test_a_device_is_removed(ap: Workbench) -> None:
    """1 written to ``remove`` removes the device."""
    device = ap.device()
    error = device.remove()

    assert (error, device.exists) == ("", False)


def test_nothing_is_removed_by_0(ap: Workbench) -> None:
    """0 written to ``remove`` is accepted and does nothing."""
    device = ap.device()
    error = device.write("remove", "0")

    assert (error, device.exists) == ("", True)


def test_remove_takes_a_number(ap: Workbench) -> None:
    """A word written to ``remove`` is EINVAL."""
    assert ap.device().write("remove", "please") == "EINVAL"


@pytest.mark.parametrize("name", ["matrix", "guest_matrix", "control_domains"])
def test_what_is_shown_cannot_be_written(ap: Workbench, name: str) -> None:
    """matrix, guest_matrix and control_domains are for reading: EACCES."""
    assert ap.device().write(name, "1") == "EACCES"


def test_removing_a_device_frees_its_queues(freed: Workbench) -> None:
    """After the removal another device can have the same queues."""
    freed.device().configure(adapters=(5,), domains=(4,)).remove()
    after = freed.bus.status("05.0004")

    other = freed.device().configure(adapters=(5,), domains=(4,))

    assert (after, other.matrix) == ("unassigned", ("05.0004",))


def test_removing_a_device_resets_its_queues(freed: Workbench) -> None:
    """Keys must not stay: the removal zeroizes every queue of the device (ZAPQ)."""
    device = freed.device().configure(adapters=(5,), domains=(4, 0x47))
    mark = freed.instruction_mark()
    device.remove()

    assert freed.zapped_since(mark) == ["05.0004", "05.0047"]
