"""What firmware leaves behind: bus masters."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from harness.testing import must_fail
from suites.environment.conftest import USED, Firmware

pytestmark = pytest.mark.full


def check_masters(masters: Collection[str]) -> None:
    """Bus masters are the controllers that the firmware used, and nobody else."""
    assert set(masters) == set(USED), f"bus masters: {', '.join(sorted(masters)) or 'none'}"


@pytest.mark.rule("ENV-07")
def test_firmware_makes_masters_of_what_it_used(firmware: Firmware) -> None:
    """After firmware only the functions that it looked for a disk on are bus masters."""
    check_masters(firmware.after)


@pytest.mark.negative_control("ENV-07")
def test_masters_before_the_firmware_are_noticed(firmware: Firmware) -> None:
    """Before it ran nobody is bus master, and the check fails."""
    with must_fail():
        check_masters(firmware.before)
