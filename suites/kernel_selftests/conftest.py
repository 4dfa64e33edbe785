"""Tests that come with Linux, run on a host and in a guest; their results are ours.

==================  =============================================================================
``program``         has one of them on the host: ``program("vfio/vfio_dma_mapping_test")``
``mode``            a way to the IOMMU; repeated for all five, those the kernel lacks are skipped
``with_iommufd``    the kernel has /dev/iommu
``with_type1``      the kernel has the container of type 1
``vfio_guest``      a nested guest with an IOMMU of its own, and an igb and an nvme of the host
``program_inside``  has one of them in that guest
``mode_inside``     a way to the guest's IOMMU; repeated for three
``iommufd_inside``  the kernel of the guest has /dev/iommu
``type1_inside``    the kernel of the guest has the container of type 1
``free_inside``     a function of the guest, by name, in the hands of the guest's vfio-pci
==================  =============================================================================

The guest has the kernel that ``--guest-kernel`` names, as all have; but where that of the host is
compiled here and nothing else is asked for, the guest has the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from harness.guest.guest import Guest
from harness.guest.keys import RunKey
from harness.guest.system import System
from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import INTEL_IOMMU
from harness.lab.grounds import give_to_user_space
from harness.lab.hosts import open_virtual
from harness.lab.kernel_test import KernelTest, place_kernel_test
from harness.lab.nested import Nested
from harness.lab.parts import Parts
from harness.lab.resident import Resident
from harness.machine.command import MachineSpec
from harness.model.pci import PciFunction
from harness.parse.ktap import KtapReport, KtapResult, Outcome
from harness.settings import Settings
from harness.suite_fixtures import WENT_WRONG, Free
from harness.testing import skip

Program = Callable[[str], KernelTest]

MAPPINGS = "vfio/vfio_dma_mapping_test"
REGISTERS = "vfio/vfio_dma_mapping_mmio_test"
DEVICE = "vfio/vfio_pci_device_test"
SETUP = "vfio/vfio_iommufd_setup_test"
COPIES = "vfio/vfio_pci_driver_test"
"""Programs of ``tools/testing/selftests``."""

TYPE1 = "vfio_type1v2_iommu"
MODES = (
    "vfio_type1_iommu", TYPE1, "iommufd_compat_type1", "iommufd_compat_type1v2", "iommufd",
)  # fmt: skip
"""``iommu_modes`` of ``tools/testing/selftests/vfio/lib/iommu.c``."""
DRIVERS = (TYPE1, "iommufd_compat_type1v2", "iommufd")
"""Those of them that have drivers of their own: type 1 of the first kind is the same one."""
OVERFLOW = "overflow"
"""The test of a range that goes beyond the last address."""
MODULE = "vfio_iommu_type1"
"""The container of type 1. /dev/vfio/vfio does not show it: iommufd may stand in for it."""

ENABLES = "trapline run --kernel built:7.3 kernel_selftests (compiles it, once)"
ENABLES_INSIDE = ENABLES.replace("--kernel", "--guest-kernel")
ENABLES_TYPE1 = "a kernel with CONFIG_VFIO_CONTAINER (debian:trixie)"
ENABLES_GROUPS = "a kernel with CONFIG_VFIO_GROUP (debian:trixie)"


@pytest.fixture
def program(host: Host, parts: Parts) -> Program:
    """Have a program of the kernel's tests on the host."""
    return lambda name: place_kernel_test(host, parts.kernel_tests, name)


@pytest.fixture
def with_iommufd(host: Host, free: Free) -> None:
    """The kernel of the host has iommufd, and nodes for devices."""
    needs(host, "/dev/iommu", enabled_by=ENABLES)
    # The directory is there when a device is in it.
    free("igb")
    needs(host, "/dev/vfio/devices", enabled_by=ENABLES)


@pytest.fixture
def with_type1(host: Host, free: Free) -> None:
    """The kernel of the host has the container of type 1."""
    needs_type1(host, free)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest, host: Host, free: Free) -> str:
    """A way to the IOMMU that the kernel of the host has."""
    name: str = request.param
    request.getfixturevalue("with_iommufd" if name.startswith("iommufd") else "with_type1")
    needs_group(host, free, name)
    return name


# -- in a nested guest --------------------------------------------------------------------------


@pytest.fixture(scope="package")
def guest_keeper(
    resident: Resident,
    parts: Parts,
    run_key: RunKey,
    shared_evidence: Callable[[str], Path],
) -> Iterator[Resident]:
    """Keeper of the guest; of one with the kernel of its host the host is another, too."""
    default = Settings().guest_kernel
    is_built = parts.settings.kernel.startswith("built:")
    if parts.settings.host != "virtual" or parts.settings.guest_kernel != default or not is_built:
        yield resident
        return
    alike = parts.with_guests_like_their_host()

    def open_with_guest(spec: MachineSpec, evidence: Path) -> VirtualHost:
        return open_virtual(alike, key=run_key, evidence=evidence, nested=spec)

    keeper = Resident(resident.host, resident.names, shared_evidence, open_with_guest)
    try:
        yield keeper
    finally:
        keeper.close()


@pytest.fixture
def vfio_guest(
    guest_keeper: Resident, evidence: Path, request: pytest.FixtureRequest
) -> Iterator[Nested]:
    """A guest with an intel-iommu in caching mode, four pages of 2 MiB, and igb and nvme."""
    nested = guest_keeper.guest(
        "kernel-selftests",
        devices=[name for name in ("igb", "nvme") if name in guest_keeper.names],
        iommu=INTEL_IOMMU,
        append="intel_iommu=on hugepages=4",
    )
    nested.machine.evidence_for(evidence)
    yield nested
    if request.node.stash.get(WENT_WRONG, False):
        guest_keeper.end(nested)


@pytest.fixture
def guest(vfio_guest: Nested) -> Guest:
    """Its system."""
    assert vfio_guest.guest is not None, "a guest without a system"
    return vfio_guest.guest


@pytest.fixture
def program_inside(guest: Guest, parts: Parts) -> Program:
    """Have a program of the kernel's tests in the guest."""
    return lambda name: place_kernel_test(guest, parts.kernel_tests, name)


@pytest.fixture
def free_inside(vfio_guest: Nested, guest: Guest) -> Free:
    """Return a function of the guest, by name of the test device, that its vfio-pci has."""

    def free(name: str) -> PciFunction:
        bdf = vfio_guest.assigned[name].bdf
        give_to_user_space(guest, bdf, safe=True)
        return guest.function(bdf)

    return free


@pytest.fixture
def iommufd_inside(guest: Guest, free_inside: Free) -> None:
    """The kernel of the guest has iommufd, and nodes for devices."""
    free_inside("igb")
    needs(guest, "/dev/iommu", enabled_by=ENABLES_INSIDE)
    needs(guest, "/dev/vfio/devices", enabled_by=ENABLES_INSIDE)


@pytest.fixture
def type1_inside(guest: Guest, free_inside: Free) -> None:
    """The kernel of the guest has the container of type 1."""
    needs_type1(guest, free_inside)


@pytest.fixture(params=DRIVERS)
def mode_inside(request: pytest.FixtureRequest, guest: Guest, free_inside: Free) -> str:
    """A way to the guest's IOMMU that the kernel of the guest has."""
    name: str = request.param
    request.getfixturevalue("iommufd_inside" if name.startswith("iommufd") else "type1_inside")
    needs_group(guest, free_inside, name)
    return name


# -- for both -----------------------------------------------------------------------------------


def needs(system: System, node: str, *, enabled_by: str) -> None:
    """Skip where the kernel of *system* does not offer *node*."""
    if not system.exists(node):
        skip(f"the kernel of {system.name} has no {node}", enabled_by=enabled_by)


def needs_type1(system: System, free: Free) -> None:
    """Skip where the kernel of *system* does not have the container of type 1."""
    free("igb")  # with vfio comes the module, or soon
    system.run(f"modprobe {MODULE} 2>/dev/null || :")
    needs(system, f"/sys/module/{MODULE}", enabled_by=ENABLES_TYPE1)


def needs_group(system: System, free: Free, mode: str) -> None:
    """Skip where *mode* opens groups, as all but iommufd's own do, and *system* has no nodes."""
    if mode != "iommufd":
        needs(system, f"/dev/vfio/{free('igb').iommu_group}", enabled_by=ENABLES_GROUPS)


@contextmanager
def no_iommufd(system: System) -> Iterator[None]:
    """Have another device in the place of /dev/iommu while inside."""
    system.run("mount --bind /dev/null /dev/iommu")
    try:
        yield
    finally:
        system.run("umount /dev/iommu")


def no_mappings(system: System) -> AbstractContextManager[None]:
    """Allow containers no mapping for DMA while inside."""
    return system.parameter(MODULE, "dma_entry_limit", "0")


def says_overflow(system: System) -> bool:
    """Say whether the kernel answers EOVERFLOW to a range beyond all addresses (LST-02)."""
    return system.kernel.has(6, 18)


def mapping_variants(mode: str) -> list[str]:
    """Return the variants of vfio_dma_mapping_test that go by *mode*."""
    pages = ("anonymous", "anonymous_hugetlb_2mb", "anonymous_hugetlb_1gb")
    return [mode, *(f"{mode}_{page}" for page in pages)]


def check_result(result: KtapResult) -> None:
    """It passed; skipped, it skips the test that asks."""
    if result.outcome is Outcome.SKIP:
        skip(
            f"Linux's own test skips: {result.reason or 'it gives no reason'}",
            enabled_by="a host or a variant of the test that has what it asks for",
        )
    assert result.outcome is not Outcome.FAIL, "\n".join([str(result), *result.said[-12:]])


def check_report(report: KtapReport, subtests: pytest.Subtests | None = None) -> None:
    """Nothing failed, and every test has a result.

    :param subtests: where each result becomes one, skipped with the reason it gives.
    """
    if subtests is not None:
        for result in report.results:
            with subtests.test(result.name):
                check_result(result)
    problems = report.problems()
    assert not problems, "\n".join(problems)
