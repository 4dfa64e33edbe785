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

ACCELERATORS = {"host": "", "tcg": "tcg"}
"""Values of ``-accel``, empty for what machines of the host use."""


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
    """A machine that has them all, run as the parameter says; its vCPU reads what it is told."""
    place = shared_evidence(f"bare-zoo-{request.param}")
    each = dict.fromkeys(zoo_host.slots, VfioOptions())
    with zoo_host.machine(each, evidence=place, accel=ACCELERATORS[request.param]) as machine:
        yield machine
