"""Waits: their value, their deadline, their guards."""

from __future__ import annotations

import pytest

from harness.errors import MachineDied, WaitTimeout
from harness.wait import wait_until


def test_the_first_true_value_is_returned() -> None:
    values = iter([None, 0, "", "third"])

    assert wait_until("a value", lambda: next(values), timeout=5) == "third"


def test_a_missed_deadline_says_what_was_waited_for_and_last_seen() -> None:
    with pytest.raises(WaitTimeout, match=r"the link: did not happen within 0\.05 s") as caught:
        wait_until(
            "the link", lambda: None, timeout=0.05, last_seen=lambda: "down", hint="plug it in"
        )

    assert (caught.value.seen, caught.value.hint) == ("down", "plug it in")


def test_the_condition_is_tried_once_even_without_time() -> None:
    assert wait_until("now", lambda: True, timeout=0)


def test_a_guard_ends_a_wait_before_its_condition_is_tried() -> None:
    def dead() -> None:
        raise MachineDied("gone")

    with pytest.raises(MachineDied):
        wait_until("never", lambda: pytest.fail("tried"), timeout=30, guards=(dead,))


def test_an_error_of_the_condition_is_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        wait_until("broken", lambda: 1 / 0, timeout=30)
