"""The words that suite tests are written with."""

from __future__ import annotations

import pytest

from harness.errors import HostError
from harness.testing import check_said, must_fail


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
