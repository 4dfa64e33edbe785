"""The reset of a virtual function of igb whose interface is down never ends.

Not part of the suites, as it costs the host: docs/findings/igbvf-reset-while-down.md.
"""

from __future__ import annotations

import pytest

from harness.errors import Unreachable
from harness.lab.sriov_stage import SriovStage
from suites.sriov.conftest import Family

PATIENCE = 20
"""Seconds; a reset takes a tenth of one."""


@pytest.mark.parametrize("state", ["up", "down"])
def test_reset_ends(stage: SriovStage, family: Family, state: str) -> None:
    """The kernel resets a virtual function whose interface is *state*."""
    function = family.virtual[0].bdf
    change = stage.host.bind(function, "igbvf")
    place = f"/sys/bus/pci/devices/{function}"
    (interface,) = stage.host.list_directory(f"{place}/net")
    stage.host.run(f"ip link set {interface} {state}")

    try:
        stage.host.run(f"echo 1 > {place}/reset", timeout=PATIENCE)
    except Unreachable:
        pytest.fail(f"no end of the reset after {PATIENCE} s; the host is of no use any more")

    stage.host.put_back(change)
