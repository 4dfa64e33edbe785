"""Guests whose own user space drives devices; the QEMU under test runs them on this computer.

====================  ==========================================================================
``shielded_guest``    one with an intel-iommu: interrupt remapping, caching mode
``bare_guest``        one without any IOMMU
``unsafe_guest``      the same, where vfio may do without; needs a kernel that has that mode
``edu``, ``bare_edu``  the edu of each, as Linux shows it
====================  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.guest.keys import RunKey
from harness.guest.user_nodes import knows_noiommu, noiommu_allowed
from harness.host.virtual import VirtualHost
from harness.lab.driver_guest import DriverGuest, open_driver_guest
from harness.lab.parts import Parts
from harness.model.pci import PciFunction
from harness.testing import skip


@pytest.fixture(scope="package")
def shielded_guest(
    virtual_host: VirtualHost,
    parts: Parts,
    run_key: RunKey,
    shared_evidence: Callable[[str], Path],
) -> Iterator[DriverGuest]:
    """A guest with an intel-iommu."""
    opened = open_driver_guest(parts, key=run_key, evidence=shared_evidence("shielded-guest"))
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture(scope="package")
def bare_guest(
    virtual_host: VirtualHost,
    parts: Parts,
    run_key: RunKey,
    shared_evidence: Callable[[str], Path],
) -> Iterator[DriverGuest]:
    """A guest without an IOMMU."""
    opened = open_driver_guest(
        parts, key=run_key, evidence=shared_evidence("bare-guest"), iommu=None
    )
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def unsafe_guest(bare_guest: DriverGuest) -> Iterator[DriverGuest]:
    """That guest, while vfio may do without an IOMMU."""
    if not knows_noiommu(bare_guest.host):
        skip("the kernel has no CONFIG_VFIO_NOIOMMU", enabled_by="--kernel built:7.3")
    with noiommu_allowed(bare_guest.host):
        yield bare_guest


@pytest.fixture
def edu(shielded_guest: DriverGuest) -> PciFunction:
    """The edu of the guest with an IOMMU."""
    return shielded_guest.edu()


@pytest.fixture
def bare_edu(bare_guest: DriverGuest) -> PciFunction:
    """The edu of the guest without one."""
    return bare_guest.edu()
