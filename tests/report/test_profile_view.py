"""What a look at a device is told like."""

from __future__ import annotations

import json

from harness.model.pci import Bdf, PciFunction, PciId
from harness.model.profile import (
    Defect,
    DeviceProfile,
    FunctionProfile,
    SeenDevice,
    SeenFunction,
    check,
)
from harness.report.profile_view import finding_dict, finding_lines, profile_lines

PROFILE = DeviceProfile(
    "card",
    "a card",
    "a book",
    FunctionProfile(id=PciId(1, 2), msix=0, rom=0x10000),
    defects=(Defect("no vectors", "a book", "physical.msix"), Defect("it smells", "a nose")),
)
FUNCTION = PciFunction(Bdf.parse("03:00.0"), PciId(1, 2), 0, rom_size=0x8000, config=bytes(256))
FOUND = check(PROFILE, SeenDevice(SeenFunction(FUNCTION)))
CUT = check(PROFILE, SeenDevice(None, why_no_physical="gone"))


def test_each_item_has_a_line_with_what_was_wanted_and_found() -> None:
    assert list(finding_lines(PROFILE, "here", FOUND)) == [
        "card: a card",
        "looked at: here",
        "  holds      physical.id    0001:0002",
        "  DIFFERS    physical.rom   wanted 64K; found 32K",
        "  holds      physical.msix  0",
        "                            known defect: no vectors",
        "2 holds, 1 differs, 0 not asked",
        "  also known: it smells [a nose]",
    ]


def test_what_could_not_be_asked_says_why() -> None:
    assert "  not asked  physical.msix  wanted 0; gone" in finding_lines(PROFILE, "here", CUT)


def test_json_has_the_same() -> None:
    told = finding_dict(PROFILE, "here", FOUND)

    assert json.loads(json.dumps(told)) == told
    assert told["looked_at"] == "here"
    items = told["items"]
    assert isinstance(items, list)
    assert [one["answer"] for one in items] == ["holds", "differs", "holds"]
    assert items[1] == {
        "item": "physical.rom", "answer": "differs", "wanted": "64K", "found": "32K",
        "defects": [],
    }  # fmt: skip


def test_a_profile_is_shown_as_it_would_be_judged() -> None:
    lines = list(profile_lines(PROFILE))

    assert "  physical.rom   64K" in lines
    assert "defect: physical.msix: no vectors [a book]" in lines
