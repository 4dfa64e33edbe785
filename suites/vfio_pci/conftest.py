"""Fixtures of the vfio-pci suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from harness.guest.keys import RunKey
from harness.host.virtual import VirtualHost
from harness.lab.assigned import Assigned
from harness.lab.nested import Nested
from harness.lab.parts import Parts
from harness.lab.zoo import open_zoo
from harness.model.vfio_mapping import VfioOptions
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


@pytest.fixture(scope="session")
def zoo(
    virtual_host: VirtualHost,
    parts: Parts,
    run_key: RunKey,
    shared_evidence: Callable[[str], Path],
) -> Iterator[Nested]:
    """A machine with firmware only that has one of each shape of device (`harness.host.zoo`)."""
    opened = open_zoo(parts, key=run_key, evidence=shared_evidence("zoo"))
    try:
        yield opened
    finally:
        opened.close()
