"""virtio-iommu: what it has, what its machine must have, how a guest uses it."""

from dataclasses import replace

import pytest

from harness.guest.block import BlockDevice
from harness.guest.system import System
from harness.host.host import Host
from harness.lab.hosts import DISK_SEED
from harness.lab.nested import Nested
from harness.machine.command import MachineSpec
from harness.model.memory_map import MemoryMap
from harness.model.version import QemuVersion
from harness.suite_fixtures import Attempt
from harness.testing import check_said, must_fail
from suites.viommu.conftest import VIRTIO, LookAt, machine_with, os_of

BLOCK = 64 * 1024

NO_HANDLER = "Check your machine implements a hotplug handler for the virtio-iommu-pci device"


def on_a_machine_without_handler(host: Host) -> MachineSpec:
    """Return a microvm, which does not know what to do with a virtio-iommu."""
    spec = machine_with(host, VIRTIO)
    return replace(
        spec,
        machine="microvm",
        machine_options={"pcie": True},
        iommu=replace(VIRTIO, addr="0x2"),
        devices=(),
    )


@pytest.mark.rule("VIO-02")
def test_machine_must_know_it(host: Host, attempt: Attempt) -> None:
    """A machine without a hot-plug handler for it is refused, and told so."""
    check_said(attempt(host, on_a_machine_without_handler(host)), NO_HANDLER)


@pytest.mark.negative_control("VIO-02")
def test_a_machine_that_knows_it_is_noticed(host: Host, attempt: Attempt) -> None:
    """A q35 has one."""
    said = attempt(host, machine_with(host, VIRTIO))

    with must_fail():
        check_said(said, NO_HANDLER)


SINCE = {"boot-bypass": (7, 0), "granule": (9, 0), "aw-bits": (9, 0)}
"""Properties, and the version they came with."""


def check_properties(version: QemuVersion, properties: frozenset[str]) -> None:
    """Each is there from its version on, and not before."""
    expected = {name for name, since in SINCE.items() if version.has(*since)}
    assert expected == properties & set(SINCE), sorted(properties)


@pytest.mark.rule("VIO-06")
def test_properties_came_one_by_one(host: Host) -> None:
    """boot-bypass is there since 7.0, granule and aw-bits since 9.0."""
    check_properties(host.qemu.version, host.qemu.features.device_properties(VIRTIO.driver))


@pytest.mark.negative_control("VIO-06")
def test_properties_of_another_version_are_noticed(host: Host) -> None:
    """Those of QEMU 8.2 are not those of today, nor the contrary."""
    properties = host.qemu.features.device_properties(VIRTIO.driver)
    other = (8, 2, 0) if host.qemu.version.has(9, 0) else (9, 0, 0)

    with must_fail():
        check_properties(QemuVersion(*other), properties)


REGION = "virtio-iommu-memory-region-"


def endpoint_views(found: MemoryMap) -> list[str]:
    """Return the roots of the views of endpoints that do not see memory as it is."""
    return [str(view.root) for view in found if str(view.root).startswith(REGION)]


def check_bypass(found: MemoryMap) -> None:
    """Every endpoint sees what the processor sees."""
    assert not endpoint_views(found), endpoint_views(found)


@pytest.mark.rule("VIO-07")
def test_endpoints_bypass_at_first(looked_at: LookAt) -> None:
    """Until a driver attaches them endpoints see memory as it is."""
    check_bypass(looked_at(VIRTIO))


def check_attached(found: MemoryMap) -> None:
    """There are views of endpoints."""
    assert endpoint_views(found), [view.root for view in found]


@pytest.mark.rule("VIO-07")
@pytest.mark.negative_control("VIO-07")
def test_attached_endpoints_have_views(virtio_guest: Nested) -> None:
    """When the guest has attached them each has a view of its own."""
    found = virtio_guest.machine.memory_map()

    check_attached(found)
    with must_fail():
        check_bypass(found)


@pytest.mark.negative_control("VIO-07")
def test_bypass_is_no_view(looked_at: LookAt) -> None:
    """Before that they have not."""
    found = looked_at(VIRTIO)

    with must_fail():
        check_attached(found)


VIOT = "/sys/firmware/acpi/tables/VIOT"


def check_found(system: System) -> None:
    """The guest finds the table, and has groups."""
    assert system.exists(VIOT)
    assert system.iommu_groups()


@pytest.mark.rule("VIO-08")
def test_guest_finds_it_by_its_table(virtio_guest: Nested) -> None:
    """Linux finds a virtio-iommu by the ACPI table VIOT and makes groups."""
    check_found(os_of(virtio_guest))


@pytest.mark.negative_control("VIO-08")
def test_a_guest_without_is_noticed(nested: Nested) -> None:
    """A guest without it has neither."""
    with must_fail():
        check_found(os_of(nested))


def check_disk(nested: Nested, seed: int) -> None:
    """The assigned nvme reads the lab's data by DMA through the virtio-iommu."""
    disk = BlockDevice(os_of(nested), "/dev/nvme0n1")
    assert disk.holds(seed, offset=BLOCK, length=BLOCK)


@pytest.mark.rule("VIO-10")
def test_assignment_needs_no_option(virtio_guest: Nested) -> None:
    """An assigned nvme works behind a virtio-iommu that was given no option at all."""
    check_disk(virtio_guest, DISK_SEED)


@pytest.mark.negative_control("VIO-10")
def test_other_data_is_noticed(virtio_guest: Nested) -> None:
    """What is not on the disk is not read."""
    with must_fail():
        check_disk(virtio_guest, DISK_SEED + 1)
