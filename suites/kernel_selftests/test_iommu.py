"""``tools/testing/selftests/iommu``: what Linux asks of iommufd, of a device that is not there."""

from collections.abc import Iterator

import pytest

from harness.guest.huge_pages import huge_pages
from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.model.version import RELEASE
from harness.testing import must_fail, skip
from suites.kernel_selftests.conftest import (
    ENABLES,
    Program,
    check_report,
    no_iommufd,
)

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("with_iommufd", "with_mock")]

PROGRAM = "iommu/iommufd"
MOCK = "/sys/bus/iommufd_mock"

DMA_BUF = ("dmabuf_simple", "dmabuf_revoke")
"""Tests of buffers that the mock makes."""


@pytest.fixture
def with_mock(host: Host, with_iommufd: None) -> None:
    """The kernel of the host has the device that is not there."""
    if not host.exists(MOCK):
        skip("the kernel of the host has no CONFIG_IOMMUFD_TEST", enabled_by=ENABLES)


@pytest.fixture
def many_huge_pages(virtual_host: VirtualHost) -> Iterator[None]:
    """The host has 160 pages of 2 MiB that nobody uses; the largest test maps 64 of them."""
    virtual_host.write_text("/proc/sys/vm/compact_memory", "1")
    with huge_pages(virtual_host, 160):
        yield


@pytest.mark.rule("LST-06")
@pytest.mark.usefixtures("many_huge_pages")
def test_iommufd_keeps_its_promises(program: Program, subtests: pytest.Subtests) -> None:
    """What iommufd promises holds for a mock device: objects, ranges, pages, dirty bits."""
    check_report(program(PROGRAM).run(leave_out=DMA_BUF, timeout=600), subtests)


@pytest.fixture
def with_dma_bufs(host: Host, with_mock: None) -> None:
    """The mock makes them, and tells which: 7.3-rc7 does not (docs/findings/mock-dma-buf.md)."""
    if not host.kernel.has(6, 19):
        skip(f"iommufd of Linux {host.kernel} maps no dma-buf", enabled_by="Linux 6.19 or later")
    if host.kernel.has(7, 3) and host.kernel.candidate != RELEASE:
        skip(
            f"Linux {host.kernel} answers 0 for every dma-buf of its mock, and its tests of them"
            " test standard input",
            enabled_by="Linux 6.19 to 7.2 with CONFIG_IOMMUFD_TEST",
        )


@pytest.mark.rule("LST-06")
@pytest.mark.usefixtures("with_dma_bufs")
def test_a_dma_buf_is_mapped_until_it_is_revoked(
    program: Program, subtests: pytest.Subtests
) -> None:
    """A dma-buf is mapped within its size, and after its owner revoked it no more."""
    check_report(program(PROGRAM).run(only=DMA_BUF), subtests)


@pytest.mark.negative_control("LST-06")
def test_an_iommufd_that_is_none_is_noticed(virtual_host: VirtualHost, program: Program) -> None:
    """Where /dev/iommu is another device it promises nothing."""
    test = program(PROGRAM)

    with no_iommufd(virtual_host):
        report = test.run(variants=["mock_domain"], timeout=600)

    with must_fail():
        check_report(report)
