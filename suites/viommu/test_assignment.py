"""virtio-iommu and amd-iommu before assigned functions and many processors: what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from harness.errors import Unreachable
from harness.guest.vfio_driver import drive
from harness.host.host import Host
from harness.lab.assigned import Assigned
from harness.lab.nested import Nested
from harness.machine.command import Device, MachineSpec
from harness.machine.outcome import Outcome, outcome_of_hot_add
from harness.model.version import QemuVersion
from harness.parse.dmesg import VfioNote, vfio_messages
from harness.suite_fixtures import Attempt, Free, Launch
from harness.testing import must_fail, skip
from suites.viommu.conftest import AMD, VIRTIO, machine_with

# -- page sizes -------------------------------------------------------------------------------


def add_behind(host: Host, launch: Launch, free: Free, granule: str) -> Outcome:
    """Hot-add the nvme behind a virtio-iommu that maps by *granule*."""
    if "granule" not in host.qemu.features.device_properties(VIRTIO.driver):
        skip(
            f"virtio-iommu of QEMU {host.qemu.version} has no granule",
            enabled_by="QEMU 9.0 or later",
        )
    machine = launch(machine_with(host, VIRTIO.having(granule=granule)))
    nvme = Device("vfio-pci", "nvme", "rp0", "0", {"host": str(free("nvme").bdf)})
    return outcome_of_hot_add(machine, nvme)


def check_frozen(said: Outcome) -> None:
    """The function is refused: its host cannot map by what the guest was told."""
    words = "does not support frozen granule 0x10000"
    assert not said.accepted, f"accepted; expected {words!r}"
    assert said.orderly and words in said.said, said


@pytest.mark.full
@pytest.mark.rule("VIO-05")
def test_granule_of_the_guest_is_not_changed(host: Host, launch: Launch, free: Free) -> None:
    """A hot-added function whose host maps by 4 KiB, 2 MiB or 1 GiB is refused 64 KiB."""
    check_frozen(add_behind(host, launch, free, "64k"))


@pytest.mark.full
@pytest.mark.negative_control("VIO-05")
def test_a_granule_of_the_host_is_noticed(host: Host, launch: Launch, free: Free) -> None:
    """With pages of 4 KiB the function is taken, and the check fails."""
    said = add_behind(host, launch, free, "4k")

    with must_fail():
        check_frozen(said)


# -- interrupts -------------------------------------------------------------------------------

_UNSAFE = ("vfio_iommu_type1", "allow_unsafe_interrupts")
_TO_VFIO = """\
modprobe -a vfio-pci vfio_iommu_type1
echo vfio-pci > {path}/driver_override
echo {bdf} > {path}/driver/unbind
echo {bdf} > /sys/bus/pci/drivers_probe"""
_BACK = """\
echo > {path}/driver_override
echo {bdf} > {path}/driver/unbind
echo {bdf} > /sys/bus/pci/drivers_probe"""


@pytest.fixture
def nvme_of_vfio(virtio_guest: Nested) -> Iterator[Assigned]:
    """The nvme in the guest that has a virtio-iommu, with vfio-pci of that guest."""
    nvme = virtio_guest.assigned["nvme"]
    words = {"path": f"/sys/bus/pci/devices/{nvme.bdf}", "bdf": nvme.bdf}
    nvme.os.run(_TO_VFIO.format(**words))
    try:
        yield nvme
    finally:
        nvme.os.run(_BACK.format(**words))


def open_by_vfio(nvme: Assigned, *, unsafe: bool) -> str:
    """Open the function as a driver in user space does; return what the kernel refused."""
    try:
        with (
            nvme.os.parameter(*_UNSAFE, "Y" if unsafe else "N"),
            drive(nvme.os, nvme.bdf),
        ):
            return ""
    except Unreachable as refused:
        return f"{refused.summary}\n{refused.seen}"


def check_unsafe(nvme: Assigned, said: str) -> None:
    """vfio cannot use the group, and the kernel says that interrupts are not remapped."""
    assert "Operation not permitted" in said or "EPERM" in said, said or "vfio opened it"
    notes = [message.note for message in vfio_messages(nvme.os.kernel_log().splitlines())]
    assert VfioNote.NO_INTERRUPT_REMAPPING in notes, notes


@pytest.mark.full
@pytest.mark.rule("VIO-09")
def test_vfio_behind_virtio_iommu_is_unsafe(nvme_of_vfio: Assigned) -> None:
    """Behind a virtio-iommu vfio refuses a function: nothing remaps its interrupts."""
    said = open_by_vfio(nvme_of_vfio, unsafe=False)

    check_unsafe(nvme_of_vfio, said)


@pytest.mark.full
@pytest.mark.negative_control("VIO-09")
def test_unsafe_interrupts_that_are_allowed_are_noticed(nvme_of_vfio: Assigned) -> None:
    """Told that unsafe interrupts are allowed it opens the function, and the check fails."""
    said = open_by_vfio(nvme_of_vfio, unsafe=True)

    with must_fail():
        check_unsafe(nvme_of_vfio, said)


# -- amd-iommu --------------------------------------------------------------------------------

NEEDS_XTSUP = "AMD IOMMU with x2APIC configuration requires xtsup=on"


def many_processors(host: Host, **options: bool) -> MachineSpec:
    """Return a machine that may get processors with APIC ids above 255."""
    return machine_with(host, replace(AMD, options=options)).saying("-smp", "1,maxcpus=288")


@pytest.fixture
def has_xtsup(host: Host, kvm: None) -> None:
    """This QEMU has ``xtsup``, and KVM runs its machines."""
    if "xtsup" not in host.qemu.features.device_properties(AMD.driver):
        skip(f"amd-iommu of QEMU {host.qemu.version} has no xtsup", enabled_by="QEMU 9.2 or later")


def check_wants_xtsup(said: str) -> None:
    """QEMU refuses the machine, and names the option."""
    assert NEEDS_XTSUP in said, said or "accepted"


@pytest.mark.full
@pytest.mark.rule("VIO-13")
def test_many_processors_need_xtsup(has_xtsup: None, host: Host, attempt: Attempt) -> None:
    """amd-iommu refuses a machine with x2APIC ids unless it has ``xtsup=on``."""
    check_wants_xtsup(attempt(host, many_processors(host)))


@pytest.mark.full
@pytest.mark.negative_control("VIO-13")
def test_xtsup_is_noticed(has_xtsup: None, host: Host, attempt: Attempt) -> None:
    """With it the machine is accepted, and the check fails."""
    said = attempt(host, many_processors(host, xtsup=True))

    with must_fail():
        check_wants_xtsup(said)


def check_dma_translation(version: QemuVersion, properties: frozenset[str]) -> None:
    """amd-iommu has ``dma-translation`` from 10.2 on."""
    assert ("dma-translation" in properties) == version.has(10, 2), sorted(properties)


@pytest.mark.rule("VTD-64")
def test_dma_translation_became_common(host: Host) -> None:
    """``dma-translation`` is a property of all IOMMUs of a PC since 10.2."""
    check_dma_translation(host.qemu.version, host.qemu.features.device_properties(AMD.driver))


@pytest.mark.negative_control("VTD-64")
def test_properties_of_another_release_are_noticed(host: Host) -> None:
    """The properties of this QEMU are not those of one before the change, or after."""
    properties = host.qemu.features.device_properties(AMD.driver)
    other = QemuVersion(10, 1) if host.qemu.version.has(10, 2) else QemuVersion(10, 2)

    with must_fail():
        check_dma_translation(other, properties)
