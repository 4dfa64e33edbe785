"""A real QEMU with KVM on the AP host, and its vfio-ap device (hw/vfio/ap.c).

Its guest stays paused (``-S``): behind SIE there is nothing. All else is real.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harness.ap.matrix_device import MATRIX, MatrixDevice
from harness.ap.workbench import Workbench
from harness.machine.command import Device, MachineSpec
from harness.machine.machine import Machine
from harness.suite_fixtures import Launch, Refusal, RefusedCommand
from harness.testing import check_said, must_fail

NO_BUS = "No 'ap-bus' bus found for device 'vfio-ap'"
FULL_BUS = (NO_BUS, "A 'ap-bus' bus was found but is full")
"""What QEMU says of a second device: up to 10.0, and in 11.1."""
NOT_MIGRATABLE = "State blocked by non-migratable device"


def spec_with(*devices: Device, cpu: str = "host", name: str = "inner") -> MachineSpec:
    """Return a paused machine with *devices*."""
    return MachineSpec(
        name, accel="kvm", machine="s390-ccw-virtio", cpu=cpu, memory_mib=128,
        devices=devices, paused=True,
    )  # fmt: skip


def vfio_ap(device: MatrixDevice, name: str = "ap0", **options: str) -> Device:
    """Return the device of QEMU for a matrix device."""
    return Device("vfio-ap", name, options={"sysfsdev": device.path, **options})


def check_full(text: str) -> None:
    """QEMU said that the AP bus takes no second device."""
    assert any(part in text for part in FULL_BUS), f"said: {text}"


@pytest.fixture
def device(with_qemu: Workbench) -> MatrixDevice:
    """A device with adapters 5, 6 and domains 4, 0xab."""
    return with_qemu.device().configure(adapters=(5, 6), domains=(4, 0xAB))


@pytest.fixture
def other(with_qemu: Workbench) -> MatrixDevice:
    """Another device, with queue 05.0047."""
    return with_qemu.device().configure(adapters=(5,), domains=(0x47,))


def check_in_use(ap: Workbench, *queues: str) -> None:
    """These queues, and no other, are in use."""
    seen = tuple(state.name for state in ap.bus.queues.values() if state.status == "in use")
    assert seen == queues, f"in use: {' '.join(seen) or 'none'}"


# -- at start ---------------------------------------------------------------------------------


@pytest.mark.rule("AP-17")
def test_a_machine_starts_with_its_device(
    with_qemu: Workbench, launch: Launch, device: MatrixDevice
) -> None:
    """``-device vfio-ap,sysfsdev=…`` opens the device: its queues are in use."""
    machine = launch(spec_with(vfio_ap(device)))

    assert machine.qmp.execute("query-status")["status"] == "prelaunch"
    check_in_use(with_qemu, *device.matrix)


@pytest.mark.rule("AP-17")
def test_two_devices_are_refused_at_start(
    refusal: Refusal, device: MatrixDevice, other: MatrixDevice
) -> None:
    """The AP bus takes one device; QEMU 10.0 says of the second that there is no bus."""
    said = refusal(spec_with(vfio_ap(device), vfio_ap(other, "ap1")))

    check_full(said)


@pytest.mark.negative_control("AP-17")
def test_another_complaint_is_noticed(refusal: Refusal, device: MatrixDevice) -> None:
    """A wrong path is refused with other words."""
    said = refusal(spec_with(Device("vfio-ap", "ap0", options={"sysfsdev": f"{MATRIX}/nobody"})))

    with must_fail():
        check_full(said)


@pytest.mark.rule("AP-18")
def test_without_the_feature_there_is_no_bus(refusal: Refusal, device: MatrixDevice) -> None:
    """With ``ap=off`` there is no AP bus, and the other features want ``ap``."""
    said = refusal(spec_with(vfio_ap(device), cpu="host,ap=off"))

    check_said(said, NO_BUS, "'apqci' requires 'ap'", "'apft' requires 'ap'")


@pytest.mark.negative_control("AP-18")
def test_another_feature_off_is_no_matter(
    with_qemu: Workbench, launch: Launch, device: MatrixDevice
) -> None:
    """With ``apft=off`` there is a bus: nothing is refused."""
    machine = launch(spec_with(vfio_ap(device), cpu="host,apft=off"))

    with must_fail():
        check_said(machine.stderr(), NO_BUS)


def check_feature(machine: Machine, name: str, *, on: bool) -> None:
    """The host's processor model has the feature, or not."""
    model = machine.qmp.execute(
        "query-cpu-model-expansion", {"type": "full", "model": {"name": "host"}}
    )
    found = model["model"]["props"].get(name)
    assert found is on, f"{name}: {found}"


@pytest.mark.rule("AP-18")
@pytest.mark.parametrize(("name", "on"), [("ap", True), ("apqci", True), ("apft", True)])
def test_the_host_model_has_the_features(bare: Machine, name: str, on: bool) -> None:
    """The model ``host`` has the AP features that the kernel offers."""
    check_feature(bare, name, on=on)


@pytest.mark.negative_control("AP-18")
def test_a_feature_that_the_host_lacks_is_noticed(bare: Machine) -> None:
    """Without facility 65 there is no ``apqi``."""
    with must_fail():
        check_feature(bare, "apqi", on=True)


def test_a_wrong_path_is_named(refusal: Refusal, device: MatrixDevice) -> None:
    """A sysfsdev that is not there is refused by name."""
    path = f"{MATRIX}/nobody"
    said = refusal(spec_with(Device("vfio-ap", "ap0", options={"sysfsdev": path})))

    check_said(said, path, "No such file or directory")


def test_a_path_is_required(refusal: Refusal, with_qemu: Workbench) -> None:
    """Without sysfsdev QEMU refuses the device."""
    said = refusal(spec_with(Device("vfio-ap", "ap0")))

    check_said(said, "vfio-ap")


def test_a_device_in_use_is_busy(launch: Launch, refusal: Refusal, device: MatrixDevice) -> None:
    """A second machine with the same device is refused: its group is busy."""
    launch(spec_with(vfio_ap(device)))
    said = refusal(spec_with(vfio_ap(device), name="second"))

    check_said(said, "Device or resource busy")


# -- while it runs ----------------------------------------------------------------------------


@pytest.mark.rule("AP-17")
def test_a_device_is_hot_plugged(
    with_qemu: Workbench, bare: Machine, device: MatrixDevice
) -> None:
    """``device_add`` opens the device: its queues are in use."""
    bare.add_device(vfio_ap(device))

    check_in_use(with_qemu, *device.matrix)


@pytest.mark.rule("AP-17")
def test_a_second_device_is_refused(
    bare: Machine, device: MatrixDevice, other: MatrixDevice, refused_command: RefusedCommand
) -> None:
    """The second device is refused: the bus is full."""
    bare.add_device(vfio_ap(device))
    said = refused_command(bare, "device_add", driver="vfio-ap", id="ap1", sysfsdev=other.path)

    check_full(said.description)


@pytest.mark.rule("AP-25")
def test_a_device_is_unplugged(with_qemu: Workbench, bare: Machine, device: MatrixDevice) -> None:
    """``device_del`` ends with DEVICE_DELETED, and no queue is in use."""
    bare.add_device(vfio_ap(device))
    bare.remove_device("ap0")

    check_in_use(with_qemu)


@pytest.mark.negative_control("AP-25")
def test_a_device_that_stays_is_noticed(
    with_qemu: Workbench, bare: Machine, device: MatrixDevice
) -> None:
    """While it is plugged its queues are in use."""
    bare.add_device(vfio_ap(device))

    with must_fail():
        check_in_use(with_qemu)


def test_a_device_is_plugged_again(
    with_qemu: Workbench, bare: Machine, device: MatrixDevice
) -> None:
    """After it was unplugged the same device can be plugged again."""
    bare.add_device(vfio_ap(device))
    bare.remove_device("ap0")
    bare.add_device(vfio_ap(device, "ap1"))

    check_in_use(with_qemu, *device.matrix)


@pytest.mark.rule("AP-14")
def test_the_assignment_changes_under_a_machine(
    with_qemu: Workbench, bare: Machine, device: MatrixDevice
) -> None:
    """Adapters can be taken away and given while QEMU has the device."""
    bare.add_device(vfio_ap(device))
    device.unassign_adapter(6)

    check_in_use(with_qemu, "05.0004", "05.00ab")


def check_gone(machine: Machine) -> None:
    """QEMU does not have the device any more."""
    names = words_of(machine, "/machine/peripheral")
    assert "ap0" not in names, f"still there: {', '.join(names)}"


@pytest.mark.rule("AP-22", "AP-15")
def test_qemu_lets_go_when_it_is_asked(
    with_qemu: Workbench, bare: Machine, device: MatrixDevice
) -> None:
    """Removing the matrix device makes QEMU unplug it, without anybody's command."""
    bare.add_device(vfio_ap(device))
    since = bare.qmp.mark()
    with with_qemu.removing(device) as removal:
        gone = bare.qmp.wait_event("DEVICE_DELETED", timeout=30, since=since)
        assert removal.wait() == ""

    assert gone["device"] == "ap0"
    check_gone(bare)


@pytest.mark.negative_control("AP-22")
def test_a_device_that_nobody_asked_for_stays(
    bare: Machine, device: MatrixDevice, other: MatrixDevice
) -> None:
    """Removing another matrix device leaves this one where it is."""
    bare.add_device(vfio_ap(device))
    other.remove()

    with must_fail():
        check_gone(bare)


def test_a_reset_of_the_machine_reaches_the_queues(
    with_qemu: Workbench, bare: Machine, device: MatrixDevice
) -> None:
    """``system_reset`` zeroizes every queue of the device."""
    bare.add_device(vfio_ap(device))
    mark = with_qemu.instruction_mark()
    bare.qmp.execute("system_reset")

    assert with_qemu.zapped_since(mark) == list(device.matrix)


def check_blocks(said: str) -> None:
    """The device is named as what keeps the machine from migrating."""
    check_said(said, NOT_MIGRATABLE, "vfio-ap")


@pytest.mark.rule("AP-19", "MIG-07")
def test_the_device_blocks_migration(
    bare: Machine, device: MatrixDevice, refused_command: RefusedCommand
) -> None:
    """A machine with the device does not migrate."""
    bare.add_device(vfio_ap(device))
    said = refused_command(bare, "migrate", uri="exec:cat >/dev/null")

    check_blocks(said.description)


@pytest.mark.negative_control("AP-19", "MIG-07")
def test_a_machine_without_it_migrates(with_qemu: Workbench, launch: Launch) -> None:
    """Without the device nothing is said against it."""
    machine = launch(spec_with(name="mover"))
    machine.qmp.execute("migrate", {"uri": "exec:cat >/dev/null"})
    said = str(machine.qmp.execute("query-migrate"))

    with must_fail():
        check_blocks(said)


def check_same(before: str, after: str) -> None:
    """Two listings are the same, line by line."""
    assert before.splitlines() == after.splitlines()


@pytest.mark.rule("AP-20")
@pytest.mark.parametrize("words", ["info mtree", "info mtree -f"])
def test_the_memory_map_stays_as_it_is(bare: Machine, device: MatrixDevice, words: str) -> None:
    """The device has no memory: ``info mtree`` is the same with it."""
    before = bare.qmp.hmp(words)
    bare.add_device(vfio_ap(device))

    check_same(before, bare.qmp.hmp(words))


@pytest.mark.negative_control("AP-20")
def test_a_device_with_memory_is_noticed(with_qemu: Workbench, launch: Launch) -> None:
    """A device that has memory changes it."""
    bare = launch(spec_with(name="other"))
    before = bare.qmp.hmp("info mtree")
    bare.add_device(Device("virtio-rng-pci", "rng"))
    after = bare.qmp.hmp("info mtree")

    with must_fail():
        check_same(before, after)


def words_of(machine: Machine, path: str) -> Sequence[str]:
    """Return the names below a QOM path."""
    return [entry["name"] for entry in machine.qmp.execute("qom-list", {"path": path})]


def test_the_device_is_below_peripheral(bare: Machine, device: MatrixDevice) -> None:
    """``qom-list`` has the device, and it says which matrix device it is."""
    bare.add_device(vfio_ap(device))
    seen = bare.qmp.execute("qom-get", {"path": "/machine/peripheral/ap0", "property": "sysfsdev"})

    assert ("ap0" in words_of(bare, "/machine/peripheral"), seen) == (True, device.path)
