"""The iommufd backend where the kernel has it: what it opens, maps, and refuses."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.lab.assigned import Assigned
from harness.lab.nested import Nested, start_nested
from harness.lab.resident import Resident
from harness.machine.command import Device, MachineSpec
from harness.model.pci import PciFunction
from harness.model.vfio.mapping import VfioOptions
from harness.suite_fixtures import Attach, Free, Launch
from harness.testing import check_said, must_fail, skip
from suites.lifecycle.conftest import spec_with
from suites.lifecycle.test_limits import one_mapping

__all__ = ["one_mapping"]

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("with_iommufd")]

BACKEND = "backend"
GROUP, IOMMUFD = "group", "iommufd"

Started = Callable[..., Nested]


@pytest.fixture
def with_iommufd(host: Host, free: Free) -> None:
    """Kernel and QEMU have the backend."""
    # The directory of nodes is there when a device is in it.
    if host.exists("/dev/iommu"):
        free("nvme")
    if not host.exists("/dev/iommu") or not host.exists("/dev/vfio/devices"):
        skip(
            "the kernel of the host has no /dev/iommu or no /dev/vfio/devices",
            enabled_by="trapline run --kernel built:7.3 lifecycle (compiles it, once)",
        )
    if not host.qemu.version.has(9, 0):
        skip("this QEMU has no iommufd backend", enabled_by="QEMU 9.0 or later")


@pytest.fixture
def started(host: Host, resident: Resident, evidence: Path) -> Iterator[Started]:
    """Start a machine with firmware only and an nvme, by one backend or the other."""
    resident.free_devices()
    with ExitStack() as stack:

        def start(backend: str, **properties: bool) -> Nested:
            words = {name.replace("_", "-"): value for name, value in properties.items()}
            extra = ("-object", f"iommufd,id={BACKEND}") if backend == IOMMUFD else ()
            place = evidence / backend
            place.mkdir()
            machine = start_nested(
                host, ["nvme"], evidence=place, boot=False, extra=extra,
                properties=words | ({"iommufd": BACKEND} if extra else {}),
                options=VfioOptions(no_mmap=bool(properties)),
            )  # fmt: skip
            stack.callback(machine.close)
            return machine

        yield start


def who_has_it_open(host: Host) -> list[str]:
    """Return the command lines of the processes that have /dev/iommu open."""
    script = (
        "for p in /proc/[0-9]*; do"
        " ls -l $p/fd 2>/dev/null | grep -q '/dev/iommu$' && tr '\\0' ' ' < $p/cmdline && echo;"
        " done; :"
    )
    return host.run(script).stdout.splitlines()


def check_opened(host: Host) -> None:
    """A machine with the backend has /dev/iommu open."""
    found = who_has_it_open(host)
    assert any(f"iommufd,id={BACKEND}" in line for line in found), found or "nobody has it open"


@pytest.mark.rule("IFD-01")
def test_the_backend_opens_its_node(host: Host, started: Started) -> None:
    """A device with iommufd= is assigned by way of /dev/iommu."""
    started(IOMMUFD)

    check_opened(host)


@pytest.mark.negative_control("IFD-01")
def test_the_group_backend_does_not(host: Host, started: Started) -> None:
    """One without is not."""
    started(GROUP)

    with must_fail():
        check_opened(host)


def check_as_expected(assigned: Assigned) -> None:
    """The map is what device, kernel and options imply, whatever the backend."""
    found, expected = assigned.memory_map(), assigned.expectation()
    assert not expected.compare(found), expected.explain(found)


@pytest.mark.rule("IFD-08")
def test_the_map_does_not_depend_on_the_backend(started: Started) -> None:
    """By iommufd every byte is mapped or trapped as the device implies, as by the group."""
    check_as_expected(started(IOMMUFD).assigned["nvme"])


@pytest.mark.negative_control("IFD-08")
def test_another_map_by_iommufd_is_noticed(started: Started) -> None:
    """One that QEMU was told not to map fails the check of the default."""
    taken_for_default = replace(
        started(IOMMUFD, x_no_mmap=True).assigned["nvme"], options=VfioOptions()
    )

    with must_fail():
        check_as_expected(taken_for_default)


NO_BAR = ("IOMMU_IOAS_MAP failed: Bad address, PCI BAR?",)


@pytest.fixture
def without_dma_buf(host: Host) -> None:
    """This QEMU maps BARs by their addresses."""
    if host.qemu.version.has(11, 0):
        skip("this QEMU maps BARs as dma-buf", enabled_by="QEMU 9.0 to 10.2")


@pytest.mark.rule("MAP-32")
@pytest.mark.usefixtures("without_dma_buf")
def test_a_bar_is_not_mapped_for_peers(started: Started) -> None:
    """The kernel does not map a BAR for DMA of others: QEMU warns, and the machine runs on."""
    nested = started(IOMMUFD)

    check_said(nested.machine.stderr(), *NO_BAR)


@pytest.mark.negative_control("MAP-32")
def test_a_bar_that_is_mapped_for_peers_is_noticed(started: Started) -> None:
    """By its group it is mapped without a word."""
    nested = started(GROUP)

    with must_fail():
        check_said(nested.machine.stderr(), *NO_BAR)


def holder(host: Host, function: PciFunction) -> MachineSpec:
    """Return a machine that has the function by its group."""
    device = Device("vfio-pci", "held", "rp0", "0", {"host": str(function.bdf)})
    return spec_with(host, device, name="holder")


IN_USE = ("error bind device fd=", ": Device or resource busy")


@pytest.mark.rule("IFD-05")
def test_a_device_in_use_is_refused(
    host: Host, free: Free, launch: Launch, attach: Attach
) -> None:
    """A device that a machine has by its group cannot be bound to iommufd: busy."""
    function = free("nvme")
    launch(holder(host, function))

    check_said(attach(host, function.bdf, iommufd=BACKEND), *IN_USE)


@pytest.mark.negative_control("IFD-05")
def test_a_device_that_is_free_is_noticed(host: Host, free: Free, attach: Attach) -> None:
    """One that nobody has can."""
    said = attach(host, free("nvme").bdf, iommufd=BACKEND)

    with must_fail():
        check_said(said, *IN_USE)


@pytest.mark.rule("IFD-10")
def test_mappings_do_not_run_out(one_mapping: VirtualHost, free: Free, attach: Attach) -> None:
    """By iommufd dma_entry_limit, which refuses the same machine by its group, counts nothing."""
    check_accepted(attach(one_mapping, free("nvme").bdf, iommufd=BACKEND))


@pytest.mark.negative_control("IFD-10")
def test_mappings_that_run_out_are_noticed(
    one_mapping: VirtualHost, free: Free, attach: Attach
) -> None:
    """By its group it is refused."""
    said = attach(one_mapping, free("nvme").bdf)

    with must_fail():
        check_accepted(said)


def check_accepted(said: str) -> None:
    """QEMU started."""
    assert not said, said
