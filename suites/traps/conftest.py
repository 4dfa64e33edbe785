"""Guests whose accesses are counted."""

from __future__ import annotations

import pytest

from harness.host.accelerator import Accel
from harness.host.host import Host


@pytest.fixture
def kvm(host: Host) -> None:
    """KVM runs the guests of the host."""
    if host.accelerator.accel is not Accel.KVM:
        pytest.skip(f"counts what KVM does: needs it on the host ({host.accelerator.reason})")
