"""Guests whose accesses are counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.guest.keys import RunKey
from harness.host.accelerator import Accel
from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.lab.parts import Parts
from harness.lab.shape_host import ShapeMachine
from harness.lab.zoo import bare_zoo as open_bare_zoo


@pytest.fixture
def kvm(host: Host) -> None:
    """KVM runs the guests of the host."""
    if host.accelerator.accel is not Accel.KVM:
        pytest.skip(f"counts what KVM does: needs it on the host ({host.accelerator.reason})")


@pytest.fixture(scope="session")
def bare_zoo(
    virtual_host: VirtualHost,
    parts: Parts,
    run_key: RunKey,
    shared_evidence: Callable[[str], Path],
) -> Iterator[ShapeMachine]:
    """A machine with one of each shape of device; its vCPU reads what it is told."""
    with open_bare_zoo(parts, key=run_key, evidence=shared_evidence("bare-zoo")) as machine:
        yield machine
