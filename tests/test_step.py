"""Steps: what listeners hear, whatever happens inside."""

from __future__ import annotations

import threading

import pytest

from harness.step import StepRecord, listen, recorded, step


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


def test_steps_know_what_they_are_inside_of_in_their_own_thread() -> None:
    def other() -> None:
        with step("elsewhere"):
            pass

    with recorded() as ended, step("outer"):
        with step("first"):
            pass
        thread = threading.Thread(target=other, name="other")
        thread.start()
        thread.join()
        with step("second"):
            pass

    by_text = {record.text: record for record in ended}
    outer = by_text["outer"].number
    assert {text: record.parent for text, record in by_text.items()} == {
        "outer": 0, "first": outer, "elsewhere": 0, "second": outer,
    }  # fmt: skip
    assert len({record.number for record in ended}) == 4
    assert by_text["elsewhere"].thread == "other"


def test_a_recorded_step_has_begin_and_end_and_those_inside_lie_within() -> None:
    with recorded() as ended:
        with step("outer"), step("inner"):
            pass
        ignored = listen(lambda _: None)
        ignored()
    with step("later"):
        pass

    inner, outer = ended
    assert outer.ended is not None
    assert inner.ended is not None
    assert outer.began <= inner.began <= inner.ended
    assert StepRecord("still going", 0, 1.0).ended is None
