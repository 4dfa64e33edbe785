"""What earlier runs took, and what is made of files that lie."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.spread.memory import NAME, UNKNOWN, Durations, Timing
from harness.spread.shared import Shared

GUEST = Shared("guest", 15)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    durations = Durations({"a.py::t": 1.5}, {"guest": 3})

    durations.write(tmp_path)

    assert Durations.read(tmp_path) == durations
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "{}", '{"tests": 1, "shared": {}}', '{"tests": {}, "shared": null}', "\x00"],
)
def test_what_cannot_be_read_is_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)

    assert Durations.read(tmp_path) == Durations()


def test_what_is_no_duration_is_left_out(tmp_path: Path) -> None:
    tests = {"a": -1, "b": float("nan"), "c": "long", "d": 2, "e": None, "f": float("inf")}
    (tmp_path / NAME).write_text(json.dumps({"tests": tests, "shared": {}}))

    assert Durations.read(tmp_path) == Durations({"d": 2}, {})


def test_a_directory_that_cannot_be_written_spoils_nothing(tmp_path: Path) -> None:
    Durations({"a": 1}).write(tmp_path / "gone")

    assert not list(tmp_path.iterdir())


def test_who_makes_the_shared_thing_does_not_pay_for_it() -> None:
    run = [
        Timing("a", "gw0", 21.0, 0.5),  # boots the host too
        Timing("b", "gw0", 0.1, 0.4),
        Timing("c", "gw1", 6.0, 1.0),
        Timing("d", "gw1", 12.0, 0.2),
    ]

    learned = Durations().learned(run, {"a": GUEST, "b": GUEST, "c": None, "d": GUEST})

    assert learned == Durations({"a": 0.5, "b": 0.5, "c": 1.0, "d": 0.2}, {"guest": 12.0})


def test_the_cost_of_a_shared_thing_follows_slowly() -> None:
    before = Durations({}, {"guest": 10})

    learned = before.learned([Timing("a"), Timing("b", "", 2.0, 0)], {"a": None, "b": GUEST})

    assert learned.shared == {"guest": 6.0}


def test_a_test_that_went_wrong_tells_nothing() -> None:
    before = Durations({"a": 60})

    learned = before.learned([Timing("a", rest=0.1, is_whole=False)], {"a": None})

    assert learned == before


def test_a_new_test_is_taken_for_a_usual_one_of_its_file() -> None:
    durations = Durations({"a.py::x": 4, "a.py::y": 8, "a.py::z": 5})

    works = durations.works(["a.py::new", "b.py::new", "a.py::x"], [None, None, GUEST])

    assert [(work.seconds, work.is_known) for work in works] == [
        (5, False), (UNKNOWN, False), (4, True),
    ]  # fmt: skip
