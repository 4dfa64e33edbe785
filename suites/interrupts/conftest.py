"""Guests that know no MSI: their devices interrupt by their pins."""

from __future__ import annotations

import pytest

from harness.host.accelerator import Accel
from harness.host.host import Host
from harness.lab.nested import Nested
from harness.lab.resident import Resident

NO_MSI = "pci=nomsi"


@pytest.fixture
def kvm(host: Host) -> None:
    """KVM runs the guests of the host."""
    if host.accelerator.accel is not Accel.KVM:
        pytest.skip(f"interrupts by way of KVM: needs it on the host ({host.accelerator.reason})")


@pytest.fixture
def intx_guest(resident: Resident) -> Nested:
    """A guest whose nvme interrupts by its pin, as QEMU does it by default."""
    return resident.guest("intx", devices=["nvme"], append=NO_MSI)


@pytest.fixture
def resizable(host: Host) -> None:
    """The host's kernel can give a device more vectors than it has."""
    if not host.kernel.has(6, 5):
        pytest.skip(f"the host has Linux {host.kernel}: 6.5 or later would enable this")
