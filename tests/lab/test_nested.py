"""Guests that went on from a saved state."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.errors import MachineDied, TimeStandsStill, Unreachable
from harness.host.virtual import Left
from harness.lab import nested as module
from harness.lab import sriov_stage, vfio_user
from harness.lab.nested import check_that_time_goes_on, wake_left


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


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """No guest answers."""

    def answer(machine: object, via: object, *, key: object) -> None:
        raise Unreachable("it does not wake")

    monkeypatch.setattr(module, "log_in_over_forward", answer)


def host() -> Any:
    return SimpleNamespace(ssh=None, guest=SimpleNamespace(key=None))


def test_a_guest_that_does_not_wake_is_told_and_its_state_is_distrusted(deaf: None) -> None:
    machine = SimpleNamespace(spec=SimpleNamespace(name="nested"), check=lambda: None)
    why: list[str] = []

    with pytest.raises(TimeStandsStill, match="does not wake"):
        wake_left(host(), cast(Any, machine), Left(cast(Any, None), "there", why.append))

    assert "it does not wake" in why[0]


def test_the_death_of_a_machine_is_no_silence_of_its_guest(deaf: None) -> None:
    def check() -> None:
        raise MachineDied("nested died")

    machine = SimpleNamespace(spec=SimpleNamespace(name="nested"), check=check)

    with pytest.raises(MachineDied):
        wake_left(host(), cast(Any, machine), Left(cast(Any, None), "there", lambda why: None))


def test_devices_are_given_to_a_guest_that_boots_where_the_one_left_is_of_no_use(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes: list[Any] = [TimeStandsStill("nested does not wake"), "the booted one"]

    def assign(stage: object, names: object, evidence: object) -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(vfio_user, "_assign", assign)

    found: Any = vfio_user.assign(cast(Any, None), {}, evidence=cast(Any, None))

    assert found == "the booted one"
    assert "nested does not wake" in caplog.text


def test_a_stage_boots_a_guest_where_the_one_left_is_of_no_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def take(*_: object, **__: object) -> None:
        raise TimeStandsStill("nested does not wake")

    booted = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr(sriov_stage, "take_nested", take)
    monkeypatch.setattr(sriov_stage, "start_nested", lambda *_, **__: booted)
    stage_host = cast(Any, SimpleNamespace(left="somebody"))

    stage = sriov_stage.SriovStage(stage_host, cast(Any, None), tmp_path)

    assert cast(Any, stage.nested) is booted
