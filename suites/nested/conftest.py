"""Devices of the virtual host in the hands of a nested guest, and hosts that lack something."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.guest.block import BlockDevice
from harness.guest.edu import Edu
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import INTEL_IOMMU
from harness.lab.assigned import Assigned
from harness.lab.nested import Nested
from harness.lab.resident import Resident
from harness.suite_fixtures import AnotherHost


@pytest.fixture
def nvme(nested: Nested) -> Assigned:
    """The nvme of the resident guest."""
    return nested.assigned["nvme"]


@pytest.fixture
def disk(nvme: Assigned) -> BlockDevice:
    """Its disk."""
    return BlockDevice(nvme.os, "/dev/nvme0n1")


@pytest.fixture
def edu(nested: Nested) -> Iterator[Edu]:
    """The edu of the resident guest: decodes memory, is bus master, does not interrupt."""
    assigned = nested.assigned["edu"]
    device = Edu(assigned.os, assigned.bdf)
    device.configure()
    yield device
    device.configure()


@pytest.fixture
def through_qemu(resident: Resident) -> Nested:
    """A guest whose nvme QEMU stands before: nothing mapped, no interrupt through KVM alone."""
    return resident.guest(
        "through-qemu",
        devices=["nvme"],
        properties={"x-no-mmap": True, "x-no-kvm-msix": True},
    )


@pytest.fixture(scope="module")
def bare_host(virtual_host: VirtualHost, another_host: AnotherHost) -> Iterator[VirtualHost]:
    """A virtual host that has no IOMMU."""
    with another_host("bare-host", None) as opened:
        yield opened


@pytest.fixture(scope="module")
def host_without_remapping(
    virtual_host: VirtualHost, another_host: AnotherHost
) -> Iterator[VirtualHost]:
    """A virtual host whose IOMMU does not remap interrupts."""
    iommu = INTEL_IOMMU.having(intremap=False)
    with another_host("host-without-remapping", iommu) as opened:
        yield opened
