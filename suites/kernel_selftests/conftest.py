"""Tests that come with Linux, run on the host; each of their results is one of ours.

==============  =================================================================================
``program``     has one of them on the host: ``program("vfio/vfio_dma_mapping_test")``
``mode``        a way to the IOMMU; repeated for all five, those the kernel lacks are skipped
``with_iommufd``  the kernel has /dev/iommu
``each_result`` reports the results of a run as subtests
==============  =================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.lab.kernel_test import KernelTest, place_kernel_test
from harness.lab.parts import Parts
from harness.parse.ktap import KtapReport, KtapResult, Outcome
from harness.suite_fixtures import Free

Program = Callable[[str], KernelTest]
EachResult = Callable[[KtapReport], None]

MODES = (
    "vfio_type1_iommu", "vfio_type1v2_iommu", "iommufd_compat_type1", "iommufd_compat_type1v2",
    "iommufd",
)  # fmt: skip
"""``iommu_modes`` of ``tools/testing/selftests/vfio/lib/iommu.c``."""

ENABLES = "trapline run --kernel built:7.3 kernel_selftests (compiles it, once) would enable this"


@pytest.fixture
def program(host: Host, parts: Parts) -> Program:
    """Have a program of the kernel's tests on the host."""
    return lambda name: place_kernel_test(host, parts.kernel_tests, name)


@pytest.fixture
def with_iommufd(host: Host, free: Free) -> None:
    """The kernel of the host has iommufd, and nodes for devices."""
    if not host.exists("/dev/iommu"):
        pytest.skip(f"the kernel of the host has no /dev/iommu: {ENABLES}")
    # The directory is there when a device is in it.
    free("igb")
    if not host.exists("/dev/vfio/devices"):
        pytest.skip(f"the kernel of the host has no /dev/vfio/devices: {ENABLES}")


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest, host: Host) -> str:
    """A way to the IOMMU that the kernel of the host has."""
    name: str = request.param
    if name.startswith("iommufd"):
        request.getfixturevalue("with_iommufd")
    elif not host.exists("/dev/vfio/vfio"):
        pytest.skip("the kernel of the host has no /dev/vfio/vfio: CONFIG_VFIO_CONTAINER")
    return name


@pytest.fixture
def each_result(subtests: pytest.Subtests) -> EachResult:
    """Report every result of a run as a subtest, skipped with the reason it gives."""

    def tell(report: KtapReport) -> None:
        for result in report.results:
            with subtests.test(result.name):
                check_result(result)

    return tell


@contextmanager
def no_iommufd(host: VirtualHost) -> Iterator[None]:
    """Have another device in the place of /dev/iommu while inside."""
    host.run("mount --bind /dev/null /dev/iommu")
    try:
        yield
    finally:
        host.run("umount /dev/iommu")


def check_result(result: KtapResult) -> None:
    """It passed; skipped, it skips the test that asks."""
    if result.outcome is Outcome.SKIP:
        pytest.skip(result.reason or "gives no reason")
    assert result.outcome is not Outcome.FAIL, "\n".join([str(result), *result.said[-12:]])


def check_report(report: KtapReport) -> None:
    """Nothing failed, and every test has a result."""
    problems = report.problems()
    assert not problems, "\n".join(problems)
