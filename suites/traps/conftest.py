"""Guests whose accesses are counted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.guest.keys import RunKey
from harness.host.virtual import VirtualHost
from harness.lab.parts import Parts
from harness.lab.shape_host import ShapeHost, ShapeMachine
from harness.lab.zoo import open_bare_zoo
from harness.model.vfio.mapping import VfioOptions

KINDS = {
    "host": ("", VfioOptions()),
    "tcg": ("tcg", VfioOptions()),
    "unmapped": ("", VfioOptions(no_mmap=True)),
}
"""Values of ``-accel``, empty for what machines of the host use, and options of the devices."""


@pytest.fixture(scope="session")
def zoo_host(
    virtual_host: VirtualHost,
    parts: Parts,
    run_key: RunKey,
    shared_evidence: Callable[[str], Path],
) -> Iterator[ShapeHost]:
    """A virtual host with one of each shape of device, which vfio-pci has."""
    with contextlib.closing(
        open_bare_zoo(parts, key=run_key, evidence=shared_evidence("bare-zoo"))
    ) as opened:
        yield opened


@pytest.fixture(scope="session")
def bare_zoo(
    zoo_host: ShapeHost,
    shared_evidence: Callable[[str], Path],
    request: pytest.FixtureRequest,
) -> Iterator[ShapeMachine]:
    """A machine that has them all, of a kind of `KINDS`; its vCPU reads and writes."""
    place = shared_evidence(f"bare-zoo-{request.param}")
    accel, options = KINDS[request.param]
    each = dict.fromkeys(zoo_host.slots, options)
    with zoo_host.machine(each, evidence=place, accel=accel) as machine:
        yield machine
