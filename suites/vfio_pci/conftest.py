"""Fixtures of the vfio-pci suite."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from harness.lab.assigned import Assigned
from harness.model.vfio.mapping import VfioOptions
from harness.suite_fixtures import FirmwareOnly

VARIANTS = {
    "nvme": VfioOptions(msix_relocation=2),
    "e1000e": VfioOptions(no_mmap=True),
    "edu": VfioOptions(no_mmap=True),
}
"""One machine for every test that wants a device mapped in another way than by default."""


@pytest.fixture
def variants(firmware_only: FirmwareOnly) -> Mapping[str, Assigned]:
    """Devices of a machine with firmware only: nvme relocated, e1000e and edu not mapped."""
    return firmware_only(each=VARIANTS).assigned
