"""What came of something that QEMU may refuse."""

from __future__ import annotations

from typing import cast

import pytest

from harness.errors import MachineDied
from harness.machine.machine import Machine
from harness.machine.outcome import outcome_of_doing


class FakeMachine:
    """A machine that has ended."""

    def __init__(self, status: int) -> None:
        self.status = status

    def wait_end(self, *, timeout: float) -> int:
        return self.status

    def stderr(self) -> str:
        return "no such thing"


def die() -> None:
    raise MachineDied("it ended", evidence=None)


def test_what_works_is_accepted() -> None:
    assert outcome_of_doing(cast(Machine, FakeMachine(0)), lambda: None).accepted


@pytest.mark.parametrize(("status", "orderly"), [(1, True), (-6, False), (0, False)])
def test_an_end_is_a_refusal_if_its_status_is_1(status: int, orderly: bool) -> None:
    came = outcome_of_doing(cast(Machine, FakeMachine(status)), die)

    assert not came.accepted
    assert came.orderly == orderly
    assert came.said == "no such thing"
