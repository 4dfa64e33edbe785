"""What a worker says its tests share, and what the suites say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness.settings import SETTINGS, Settings
from harness.spread.shared import Shared, tell, told
from harness.suite_order import in_good_order, shared_by

GUEST = Shared("guest", 15, 1, "devices")


def test_what_is_told_arrives(tmp_path: Path) -> None:
    tell(tmp_path / "gw0.json", [GUEST, None])

    assert told(tmp_path / "gw0.json", 2) == [GUEST, None]


@pytest.mark.parametrize(
    "text", [None, "", "{}", "[1]", '[["guest"]]', '[null, ["a", 1, 2, 3, 4]]']
)
def test_without_a_usable_word_nothing_is_shared(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "gw0.json").write_text(text)

    assert told(tmp_path / "gw0.json", 2) == [None, None]


def test_nobody_waits_for_a_worker_that_comes_later(tmp_path: Path) -> None:
    tell(tmp_path / "gone/gw2.json", [GUEST])

    assert not list(tmp_path.iterdir())


def item(*fixtures: str, host: str = "virtual") -> pytest.Item:
    stash = pytest.Stash()
    stash[SETTINGS] = Settings(host=host)
    made = SimpleNamespace(fixturenames=fixtures, config=SimpleNamespace(stash=stash))
    return cast(pytest.Item, made)


def test_tests_of_the_suites_share_by_their_fixtures() -> None:
    plain, ending = item("nested", "resident"), item("nested", "resident", "firmware_only")
    first, other = item("never_read", "nested"), item("firmware_only", "resident")
    groups = [shared.name for it in (plain, ending, first, other) if (shared := shared_by(it))]

    assert groups == ["resident guest", "resident guest", "resident guest", "firmware only"]
    assert shared_by(item("host", "launch")) is None


def test_the_order_of_a_run_makes_everything_once() -> None:
    names = ["free", "firmware_only", "launch", "nested", "never_read"]
    items = [item(name) for name in names]

    in_good_order(items)

    order = [cast(SimpleNamespace, it).fixturenames[0] for it in items]
    assert order == ["never_read", "nested", "launch", "firmware_only", "free"]


def test_devices_that_are_there_once_are_a_lane() -> None:
    lanes = [
        shared.lane
        for host in ("virtual", "local", "ssh://root@lab7")
        for fixtures in (("nested", "resident"), ("free", "resident"), ("paused",))
        if (shared := shared_by(item(*fixtures, host=host)))
    ]

    assert lanes == ["", "", "", *["devices", "devices", ""] * 2]
