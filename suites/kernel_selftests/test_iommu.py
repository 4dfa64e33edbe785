"""``tools/testing/selftests/iommu``: what Linux asks of iommufd, of a device that is not there."""

from collections.abc import Iterator

import pytest

from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.testing import must_fail
from suites.kernel_selftests.conftest import (
    ENABLES,
    EachResult,
    Program,
    check_report,
    no_iommufd,
)

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("with_iommufd", "with_mock")]

PROGRAM = "iommu/iommufd"
MOCK = "/sys/bus/iommufd_mock"
HUGE_PAGES = "/proc/sys/vm/nr_hugepages"

DMA_BUF = ("dmabuf_simple", "dmabuf_revoke")
"""Not judged: that a range beyond the end of a dma-buf is refused. 7.3-rc7 maps it."""


@pytest.fixture
def with_mock(host: Host, with_iommufd: None) -> None:
    """The kernel of the host has the device that is not there."""
    if not host.exists(MOCK):
        pytest.skip(f"the kernel of the host has no CONFIG_IOMMUFD_TEST: {ENABLES}")


@pytest.fixture
def huge_pages(virtual_host: VirtualHost) -> Iterator[None]:
    """The host has 160 pages of 2 MiB that nobody uses; the largest test maps 64 of them."""
    before = virtual_host.read_text(HUGE_PAGES).strip()
    virtual_host.run(f"echo 1 > /proc/sys/vm/compact_memory; echo 160 > {HUGE_PAGES}")
    try:
        yield
    finally:
        virtual_host.write_text(HUGE_PAGES, before)


@pytest.mark.rule("LST-06")
@pytest.mark.usefixtures("huge_pages")
def test_iommufd_keeps_its_promises(program: Program, each_result: EachResult) -> None:
    """What iommufd promises holds for a mock device: objects, ranges, pages, dirty bits."""
    report = program(PROGRAM).run(leave_out=DMA_BUF, timeout=600)

    each_result(report)
    check_report(report)


@pytest.mark.negative_control("LST-06")
def test_an_iommufd_that_is_none_is_noticed(virtual_host: VirtualHost, program: Program) -> None:
    """Where /dev/iommu is another device it promises nothing."""
    test = program(PROGRAM)

    with no_iommufd(virtual_host):
        report = test.run(variants=["mock_domain"], timeout=600)

    with must_fail():
        check_report(report)
