"""Attaching, detaching, and what QEMU says when it will not."""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

import pytest

from harness.host.host import Host
from harness.host.virtual_spec import assigned_device
from harness.lab.assigned import Assigned
from harness.lab.nested import Nested
from harness.machine.command import Device
from harness.machine.machine import Machine
from harness.model.address import AddressRange
from harness.model.memory_map import MemoryMap
from harness.model.pci import PciFunction
from harness.suite_fixtures import Attach, Attempt, Free, Launch, Refusal, RefusedCommand
from harness.testing import check_said, must_fail, only
from suites.lifecycle.conftest import answer_to, spec_with

NOWHERE = "0000:7f:1f.7"

NO_HOST = ("No provided host device", "vfio-pci,host=DDDD:BB:DD.F", "sysfsdev=PATH_TO_DEVICE")
MISSING = (f"vfio /sys/bus/pci/devices/{NOWHERE}: no such host device: No such file or directory",)
TWICE = ("device is already attached",)
NO_HOTPLUG_BUS = ("Bus 'pcie.0' does not support hotplugging",)
NO_HOTPLUG_DEVICE = ("Device 'vfio-pci-nohotplug' does not support hotplugging",)
BUSY = ("/dev/vfio/", "Device or resource busy")
UNKNOWN = ("Device 'nobody' not found",)
NO_AUTO = ("No automatic MSI-X relocation available for device 1b36:0010",)
SHADOW = ("Invalid MSI-X relocation BAR 1, consumed by 64-bit BAR 0",)
PORTS = ("Invalid MSI-X relocation BAR 2, I/O port BAR",)


# -- refused at start -------------------------------------------------------------------------


@pytest.mark.rule("LIF-01")
def test_host_is_required(host: Host, refusal: Refusal) -> None:
    """Without a host device QEMU says so, and how to name one."""
    said = refusal(spec_with(host, Device("vfio-pci", "lost", "rp0", "0")))

    check_said(said, *NO_HOST)


@pytest.mark.rule("LIF-02")
def test_missing_device_is_named(host: Host, refusal: Refusal) -> None:
    """A host device that is not there is refused with its sysfs path."""
    check_said(refusal(spec_with(host, assigned_device("nvme", NOWHERE))), *MISSING)


@only("nvme")
@pytest.mark.rule("LIF-13")
def test_second_machine_is_refused(host: Host, assigned: Assigned, refusal: Refusal) -> None:
    """A device that a machine has cannot be given to another: its group is busy."""
    second = spec_with(host, assigned_device("nvme", str(assigned.function.bdf)))

    check_said(refusal(second, on=assigned.host), *BUSY)


RELOCATIONS = [
    pytest.param("nvme", "auto", NO_AUTO, marks=pytest.mark.rule("MAP-21")),
    pytest.param("nvme", "bar1", SHADOW, marks=pytest.mark.rule("MAP-22")),
    pytest.param("e1000e", "bar2", PORTS, marks=pytest.mark.rule("MAP-22")),
]


@pytest.mark.parametrize(("name", "target", "expected"), RELOCATIONS)
def test_impossible_relocation_is_refused(
    host: Host, free: Free, refusal: Refusal, name: str, target: str, expected: Sequence[str]
) -> None:
    """``x-msix-relocation`` to a place that cannot take the table is refused with the cause."""
    device = assigned_device(name, str(free(name).bdf), options={"x-msix-relocation": target})

    check_said(refusal(spec_with(host, device)), *expected)


# -- refused while the machine runs -----------------------------------------------------------


@only("nvme")
@pytest.mark.rule("LIF-09")
def test_device_is_attached_once(assigned: Assigned, refused_command: RefusedCommand) -> None:
    """The same device a second time in one machine is refused."""
    error = refused_command(
        assigned.machine,
        "device_add",
        driver="vfio-pci",
        id="again",
        bus="rp3",
        host=str(assigned.function.bdf),
    )

    check_said(error.description, *TWICE)


@pytest.mark.parametrize(
    ("driver", "bus", "expected"),
    [
        pytest.param("vfio-pci", "pcie.0", NO_HOTPLUG_BUS, marks=pytest.mark.rule("LIF-18")),
        pytest.param(
            "vfio-pci-nohotplug", "rp3", NO_HOTPLUG_DEVICE, marks=pytest.mark.rule("LIF-19")
        ),
    ],
)
def test_hotplug_is_refused(
    nested: Nested,
    refused_command: RefusedCommand,
    driver: str,
    bus: str,
    expected: Sequence[str],
) -> None:
    """A bus or a device that has no hot-plug refuses it."""
    error = refused_command(
        nested.machine, "device_add", driver=driver, id="late", bus=bus, host=NOWHERE
    )

    check_said(error.description, *expected)


@pytest.mark.rule("LIF-23")
def test_unknown_device_is_refused(nested: Nested, refused_command: RefusedCommand) -> None:
    """``device_del`` of an unknown id is an error of class DeviceNotFound."""
    error = refused_command(nested.machine, "device_del", id="nobody")

    assert error.error_class == "DeviceNotFound"
    check_said(error.description, *UNKNOWN)


@pytest.mark.parametrize(
    "expected",
    [
        pytest.param(NO_HOST, marks=pytest.mark.negative_control("LIF-01")),
        pytest.param(MISSING, marks=pytest.mark.negative_control("LIF-02")),
        pytest.param(TWICE, marks=pytest.mark.negative_control("LIF-09")),
        pytest.param(BUSY, marks=pytest.mark.negative_control("LIF-13")),
        pytest.param(NO_HOTPLUG_BUS, marks=pytest.mark.negative_control("LIF-18")),
        pytest.param(NO_HOTPLUG_DEVICE, marks=pytest.mark.negative_control("LIF-19")),
        pytest.param(NO_AUTO, marks=pytest.mark.negative_control("MAP-21")),
        pytest.param(SHADOW, marks=pytest.mark.negative_control("MAP-22")),
        pytest.param(PORTS, marks=pytest.mark.negative_control("MAP-22")),
        pytest.param(UNKNOWN, marks=pytest.mark.negative_control("LIF-23")),
    ],
    ids=lambda parts: parts[0].split(":")[0].replace("/", ""),
)
def test_other_words_are_noticed(
    nested: Nested, refused_command: RefusedCommand, expected: Sequence[str]
) -> None:
    """The check of the words fails on those of another refusal."""
    error = refused_command(nested.machine, "device_add", driver="vfio-pci", bus="nowhere")

    with must_fail():
        check_said(error.description, *expected)


@pytest.mark.full
@pytest.mark.negative_control("LIF-01", "LIF-02", "LIF-13")
def test_a_function_that_is_taken_is_noticed(host: Host, free: Free, attach: Attach) -> None:
    """A function that is there, named and free is taken without a word."""
    said = attach(host, free("nvme").bdf)

    with must_fail():
        check_said(said, *NO_HOST)
    with must_fail():
        check_said(said, *MISSING)
    with must_fail():
        check_said(said, *BUSY)


@pytest.mark.full
@pytest.mark.negative_control("MAP-21", "MAP-22")
def test_a_possible_relocation_is_noticed(host: Host, free: Free, attach: Attach) -> None:
    """A BAR that can take the table takes it without a word."""
    said = attach(host, free("nvme").bdf, x_msix_relocation="bar2")

    with must_fail():
        check_said(said, *NO_AUTO)
    with must_fail():
        check_said(said, *SHADOW)
    with must_fail():
        check_said(said, *PORTS)


@pytest.mark.full
@pytest.mark.negative_control("LIF-09", "LIF-18", "LIF-19", "LIF-23")
def test_hotplug_that_is_done_is_noticed(host: Host, free: Free, launch: Launch) -> None:
    """A free function is plugged behind a root port, and found by its id, without a word."""
    machine, bdf = launch(spec_with(host)), str(free("nvme").bdf)
    came = answer_to(machine, "device_add", driver="vfio-pci", id="late", bus="rp0", host=bdf)
    went = answer_to(machine, "device_del", id="late")

    with must_fail():
        check_said(came, *TWICE)
    with must_fail():
        check_said(came, *NO_HOTPLUG_BUS)
    with must_fail():
        check_said(came, *NO_HOTPLUG_DEVICE)
    with must_fail():
        check_said(went, *UNKNOWN)


# -- migration --------------------------------------------------------------------------------


def check_blocked(machine: Machine, functions: Sequence[PciFunction]) -> list[str]:
    """Each function is a reason why the machine cannot migrate."""
    reasons = list(machine.qmp.execute("query-migrate").get("blocked-reasons", []))
    # 11.1 says "VFIO migration init failed: migration is not supported in kernel: <errno>".
    said = re.compile(
        r"(\S+): VFIO migration (?:init failed: migration )?is not supported in kernel"
    )
    found = {match[1] for match in map(said.match, reasons) if match}
    assert {str(f.bdf) for f in functions} <= found, reasons
    return reasons


@pytest.mark.rule("MIG-01")
def test_migration_is_refused(nested: Nested, refused_command: RefusedCommand) -> None:
    """Without support in the kernel each device blocks migration, and says so by name."""
    functions = [assigned.function for assigned in nested.assigned.values()]

    error = refused_command(nested.machine, "migrate", uri="file:/dev/null")

    reasons = check_blocked(nested.machine, functions)
    assert any(reason in error.description for reason in reasons), error.description


@only("nvme")
@pytest.mark.negative_control("MIG-01")
def test_machine_that_could_migrate_is_noticed(
    host: Host, assigned: Assigned, launch: Launch
) -> None:
    """The check fails on a machine without assigned devices."""
    free_to_go = launch(spec_with(host))

    with must_fail():
        check_blocked(free_to_go, [assigned.function])


# -- coming and going -------------------------------------------------------------------------


def windows_of(assigned: Assigned) -> list[AddressRange]:
    """Return where its memory BARs decode."""
    return [assigned.window(bar.index) for bar in assigned.function.bars if bar.is_memory]


def check_gone(name: str, windows: Collection[AddressRange], found: MemoryMap) -> None:
    """No view has a row of the device, and nobody answers where its BARs were.

    What is left of a device that is gone has no owner any more: the rows of its BARs are looked
    for by where they were.
    """
    rows = [row for view in found for row in view.owned_by(name)]
    rows += [row for window in windows for row in found.memory.covering(window)]
    assert not rows, rows


@only("nvme")
@pytest.mark.rule("LIF-20")
@pytest.mark.usefixtures("never_read")
def test_unplugged_device_leaves_the_map(assigned: Assigned) -> None:
    """``device_del`` ends with DEVICE_DELETED (id and path); no row of the device is left."""
    before = assigned.machine.qmp.mark()
    windows = windows_of(assigned)

    with assigned.unplugged():
        found = assigned.memory_map()

    said = assigned.machine.qmp.wait_event("DEVICE_DELETED", timeout=1, since=before)
    assert said == {"device": "nvme", "path": "/machine/peripheral/nvme"}
    check_gone("nvme", windows, found)


@only("nvme")
@pytest.mark.negative_control("LIF-20")
def test_device_that_stays_is_noticed(assigned: Assigned) -> None:
    """The check fails while the device is plugged."""
    with must_fail():
        check_gone("nvme", [], assigned.memory_map())


@only("nvme")
@pytest.mark.negative_control("LIF-20")
def test_bars_that_nobody_owns_are_noticed(assigned: Assigned) -> None:
    """The check fails on a map in which the rows of the device are there without an owner."""
    orphaned = assigned.memory_map().altered(lambda row: replace(row, owner=None))

    with must_fail():
        check_gone("nvme", windows_of(assigned), orphaned)


def check_mapped(assigned: Assigned, found: MemoryMap) -> None:
    """Each row of each BAR is what device, kernel and options imply."""
    expected = assigned.expectation()
    assert not expected.compare(found), expected.explain(found)


@only("nvme")
@pytest.mark.full
@pytest.mark.rule("LIF-20", "MAP-28")
@pytest.mark.negative_control("LIF-20", "MAP-28")
@pytest.mark.usefixtures("never_read")
def test_replugged_device_is_mapped_again(assigned: Assigned) -> None:
    """What left and came back is in the map again, byte for byte, where the guest put it."""
    with assigned.unplugged():
        without = assigned.memory_map()

    check_mapped(assigned, assigned.memory_map())
    with must_fail():
        check_mapped(assigned, without)


def check_accepted(said: str) -> None:
    """QEMU started."""
    assert not said, said


@pytest.mark.rule("LIF-31")
def test_killed_machine_frees_its_devices(
    host: Host, free: Free, launch: Launch, attempt: Attempt
) -> None:
    """After SIGKILL of QEMU a new one gets the device at once."""
    spec = spec_with(host, assigned_device("nvme", str(free("nvme").bdf)))

    assert launch(spec).kill() == -9

    check_accepted(attempt(host, spec))


@pytest.mark.full
@pytest.mark.negative_control("LIF-31")
def test_device_that_is_still_held_is_noticed(
    host: Host, free: Free, launch: Launch, attempt: Attempt
) -> None:
    """The check fails while the first QEMU lives."""
    spec = spec_with(host, assigned_device("nvme", str(free("nvme").bdf)))
    holder = launch(spec)

    with must_fail():
        check_accepted(attempt(host, replace(spec, name="second")))
    holder.check()


def check_attached(machine: Machine, function: PciFunction) -> None:
    """The machine runs without KVM, and its device ``nvme`` is *function*."""
    path = "/machine/peripheral/nvme"
    host = machine.qmp.execute("qom-get", {"path": path, "property": "host"})
    assert not machine.statistics(), "KVM runs it"
    assert host == str(function.bdf), host


@pytest.mark.full
@pytest.mark.rule("LIF-33")
def test_attaching_works_without_kvm(host: Host, free: Free, launch: Launch) -> None:
    """A machine that TCG runs gets the device too."""
    function = free("nvme")
    spec = spec_with(host, assigned_device("nvme", str(function.bdf)))

    check_attached(launch(replace(spec, accel="tcg")), function)


@pytest.mark.full
@pytest.mark.negative_control("LIF-33")
def test_attaching_with_kvm_is_told_apart(host: Host, free: Free, launch: Launch) -> None:
    """The check fails on the same machine run by KVM."""
    function = free("nvme")
    machine = launch(spec_with(host, assigned_device("nvme", str(function.bdf))))

    with must_fail():
        check_attached(machine, function)
