"""Steps: what listeners hear, whatever happens inside."""

from __future__ import annotations

import pytest

from harness.step import StepRecord, listen, step


def test_a_listener_hears_begin_and_end_with_depth() -> None:
    heard: list[StepRecord] = []
    stop = listen(heard.append)

    with step("bind %s to %s", "nvme", "vfio-pci"), step("100% inside"):
        pass
    stop()
    with step("not heard"):
        pass

    assert [(r.text, r.depth, r.seconds is None) for r in heard] == [
        ("bind nvme to vfio-pci", 0, True),
        ("100% inside", 1, True),
        ("100% inside", 1, False),
        ("bind nvme to vfio-pci", 0, False),
    ]


def test_a_step_that_fails_names_the_error_and_passes_it_on() -> None:
    heard: list[StepRecord] = []
    stop = listen(heard.append)

    with pytest.raises(ZeroDivisionError), step("divide"):
        raise ZeroDivisionError
    stop()

    assert heard[-1].failed == "ZeroDivisionError"


def test_a_listener_that_fails_is_dropped_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[str] = []

    def broken(record: StepRecord) -> None:
        calls.append(record.text)
        raise RuntimeError("no terminal")

    stop = listen(broken)
    with step("one"):
        pass
    stop()

    assert calls == ["one"]
    assert "a listener of steps failed" in caplog.text
