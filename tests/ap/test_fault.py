"""Faults of adapters, which always end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.ap.adapters import Adapters
from harness.ap.fault import LONGEST, MOST_TIMES, Fault, Faults
from harness.errors import ConfigError
from harness.model.ap.hardware import ApHardware, Card
from harness.model.ap.id import Apqn
from harness.model.ap.mask import ApMask

QUEUE, OTHER = Apqn(5, 4), Apqn(5, 0xAB)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"times": 0},
        {"times": -1},
        {"times": MOST_TIMES + 1},
        {"seconds": 0.0},
        {"seconds": LONGEST + 1},
        {"times": 1, "seconds": -1.0},
    ],
)
def test_a_fault_that_would_not_end_cannot_be_made(words: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="a fault must end"):
        Fault(5, **words)  # type: ignore[arg-type]


@pytest.mark.parametrize("on", ["QCI", "PQAP", frozenset[str]()])
def test_a_fault_is_about_instructions_with_a_response_code(on: str | frozenset[str]) -> None:
    with pytest.raises(ConfigError, match="cannot be"):
        Fault(5, on=on, times=1)


def test_a_response_code_is_a_byte() -> None:
    with pytest.raises(ConfigError, match="no response code"):
        Fault(0x100, times=1)


def test_a_fault_ends_by_time_whether_or_not_it_was_hit() -> None:
    clock = Clock()
    faults = Faults(clock)
    faults.add(Fault(5, seconds=2))

    assert faults.response(QUEUE, "TAPQ") == 5
    clock.now = 2.0
    assert faults.response(QUEUE, "TAPQ") is None


def test_the_newest_fault_wins_and_the_older_comes_back() -> None:
    faults = Faults(Clock())
    faults.add(Fault(3, times=10))
    faults.add(Fault(4, times=1, apqn=QUEUE))

    assert [faults.response(QUEUE, "TAPQ") for _ in range(2)] == [4, 3]


def test_a_fault_leaves_other_queues_and_instructions_alone() -> None:
    faults = Faults(Clock())
    fault = faults.add(Fault(5, on="ZAPQ", apqn=QUEUE, times=1))

    assert faults.response(OTHER, "ZAPQ") is None
    assert faults.response(QUEUE, "TAPQ") is None
    assert fault.answered == 0


def test_a_fault_ends_with_its_block() -> None:
    faults = Faults(Clock())
    with faults.add(Fault(5, times=100)):
        assert faults.response(QUEUE, "TAPQ") == 5
    assert faults.response(QUEUE, "TAPQ") is None


def test_all_faults_can_be_ended_at_once() -> None:
    adapters = Adapters(ApHardware(cards={5: Card()}, domains=ApMask.of([4])))
    adapters.inject(Fault(5, times=100))
    adapters.end_faults()

    assert adapters.pqap(QUEUE.value, 0, 0).response_code == 0


@given(st.integers(1, 40), st.integers(0, 80))
def test_a_fault_answers_no_more_than_its_times(times: int, asked: int) -> None:
    faults = Faults(Clock())
    faults.add(Fault(5, times=times))
    hits = [faults.response(QUEUE, "TAPQ") for _ in range(asked)]

    assert hits.count(5) == min(times, asked)
    assert hits == sorted(hits, key=lambda code: code is None)
