"""The words that suite tests are written with."""

from __future__ import annotations

import pytest

from harness.errors import HostError
from harness.testing import (
    SAID_COUNT,
    SAID_LENGTH,
    check_said,
    hearing,
    must_fail,
    what_was_said,
)


def test_what_was_said_may_have_more_than_is_expected() -> None:
    check_said("qemu: no such host device: 0000:7f:1f.7", "no such host", "7f:1f.7")


@pytest.mark.parametrize("said", ["", "no such file", "such host"])
def test_each_part_that_was_not_said_is_named(said: str) -> None:
    with pytest.raises(AssertionError, match=r"not said: \['no such host'\]"):
        check_said(said, "no such host")


def test_silence_is_told_as_consent() -> None:
    with pytest.raises(AssertionError, match="said: nothing: accepted"):
        check_said("", "refused")


def test_a_control_holds_when_the_check_inside_fails() -> None:
    with must_fail():
        check_said("yes", "no")


def test_a_control_whose_check_passes_fails() -> None:
    with pytest.raises(pytest.fail.Exception, match="it cannot fail"), must_fail():
        check_said("no", "no")


def test_an_error_inside_a_control_stays_an_error() -> None:
    with pytest.raises(HostError), must_fail():
        raise HostError("the host is gone")


def test_what_the_check_said_is_heard() -> None:
    with hearing() as heard:
        with must_fail():
            check_said("yes", "no")
        with must_fail():
            assert {1} == {2}

    assert heard[0] == "not said: ['no'] | said: yes"
    assert heard[1].startswith("assert {1} == {2}")


def test_an_inner_hearing_keeps_its_own() -> None:
    with hearing() as outer:
        with hearing() as inner, must_fail():
            check_said("yes", "no")
        assert outer == []
        with must_fail():
            check_said("yes", "never")

    assert (len(inner), len(outer)) == (1, 1)


def test_nothing_is_heard_when_nobody_listens() -> None:
    with hearing() as heard:
        pass
    with must_fail():
        check_said("yes", "no")

    assert heard == []


def test_no_more_is_kept_than_can_be_read() -> None:
    with hearing() as heard:
        for _ in range(SAID_COUNT + 1):
            with must_fail():
                check_said("yes", "no")

    assert len(heard) == SAID_COUNT


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("page 3 is direct\nassert {1} == {2}\n  more", "page 3 is direct"),
        ("assert {1} == {2}\n  more", "assert {1} == {2} | more"),
        ("first\n\n  second\n", "first | second"),
        ("\nassert 'x' in ''", "assert 'x' in ''"),
        ("", "(no words)"),
        ("x" * (SAID_LENGTH + 1), "x" * (SAID_LENGTH - 1) + "…"),
    ],
)
def test_the_words_of_a_check_become_one_short_line(words: str, line: str) -> None:
    assert what_was_said(AssertionError(words)) == line
