"""The dma-buf that QEMU has the kernel make of a BAR, and what it changes."""

import pytest

from harness.host.host import Host
from harness.lab.assigned import Assigned
from harness.suite_fixtures import Free
from harness.testing import must_fail, skip
from suites.lifecycle.test_iommufd_backend import GROUP, IOMMUFD, Started, started, with_iommufd

__all__ = ["started", "with_iommufd"]

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("with_dma_buf")]


@pytest.fixture
def with_dma_buf(host: Host, free: Free) -> None:
    """Kernel and QEMU make one of a BAR."""
    if not host.qemu.version.has(11, 0):
        skip("this QEMU makes no dma-buf", enabled_by="QEMU 11.0 or later")
    free("nvme")  # loads the module
    found = host.run("grep -c vfio_pci_core_feature_dma_buf /proc/kallsyms", check=False).stdout
    if not int(found or 0):
        skip(
            "the kernel of the host has no CONFIG_VFIO_PCI_DMABUF (Linux 6.19, with"
            " CONFIG_PCI_P2PDMA)",
            enabled_by="trapline run --qemu debian:trixie-backports"
            " --kernel debian:trixie-backports lifecycle/test_dma_buf.py",
        )


@pytest.fixture(params=[GROUP, IOMMUFD])
def backend(request: pytest.FixtureRequest) -> str:
    """A way to the IOMMU that the kernel of the host has."""
    name: str = request.param
    if name == IOMMUFD:
        request.getfixturevalue("with_iommufd")
    return name


def check_shared_without_a_trace(host: Host, assigned: Assigned) -> None:
    """A process has a dma-buf open, and the map is what it is without."""
    found = host.run("ls -l /proc/[0-9]*/fd 2>/dev/null | grep dmabuf; :").stdout.splitlines()
    assert found, "no process has a dma-buf"
    there, expected = assigned.memory_map(), assigned.expectation()
    assert not expected.compare(there), expected.explain(there)


@pytest.mark.rule("MAP-33")
def test_a_dma_buf_does_not_change_the_map(host: Host, started: Started, backend: str) -> None:
    """The mapped BAR has a dma-buf, and the map is what device and options imply."""
    check_shared_without_a_trace(host, started(backend).assigned["nvme"])


@pytest.mark.negative_control("MAP-33")
def test_a_bar_without_dma_buf_is_noticed(host: Host, started: Started, backend: str) -> None:
    """A BAR that is not mapped has none."""
    nvme = started(backend, x_no_mmap=True).assigned["nvme"]

    with must_fail():
        check_shared_without_a_trace(host, nvme)
