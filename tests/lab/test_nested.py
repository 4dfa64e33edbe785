"""Guests that went on from a saved state."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.errors import TimeStandsStill, Unreachable
from harness.host.virtual import Left
from harness.lab.nested import check_that_time_goes_on


def test_a_guest_that_waits_in_vain_is_told_and_its_state_is_distrusted() -> None:
    why: list[str] = []

    def run(command: str, *, timeout: float) -> None:
        raise Unreachable(f"{command!r} did not end within {timeout:g} s")

    left = Left(cast(Any, None), "there", distrust=why.append)
    with pytest.raises(TimeStandsStill, match="its timer does not wake it"):
        check_that_time_goes_on(cast(Any, SimpleNamespace(name="nested", run=run)), left)

    assert "did not end within" in why[0]


def test_a_guest_whose_time_goes_on_is_kept() -> None:
    why: list[str] = []
    guest = SimpleNamespace(name="nested", run=lambda command, timeout: None)

    check_that_time_goes_on(cast(Any, guest), Left(cast(Any, None), "there", why.append))

    assert why == []
