"""Rule ids that were probably meant."""

from __future__ import annotations

import pytest

from harness.report.marks import nearest
from harness.rules import load_rules


@pytest.mark.parametrize(
    ("written", "meant"), [("map-02", "MAP-02"), ("MAP_02", "MAP-02"), ("MAP02", "MAP-02")]
)
def test_the_nearest_id_comes_first(written: str, meant: str) -> None:
    assert nearest(written, load_rules())[0] == meant


def test_something_is_always_near() -> None:
    assert nearest("", load_rules())
