"""Profiles as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import paths
from harness.errors import ConfigError
from harness.model.pci import BarKind, PciId
from harness.model.profile import BarShape, EnableRule, items
from harness.parse.profile import parse_bar, parse_profile, parse_size
from harness.shapes.named.catalogue import NAMED

WHOLE = """
title = "a card"
source = "a book"
driver = "card"

[physical]
id = "8086:10c9"
class = "020000"
bars = { 0 = "128K mem32", 2 = "32 io", 3 = "16K mem64 pref" }
rom = "none"
interrupt_pin = "A"
msi = 1
msix = 10
flr = true
reset = ["flr", "bus"]
aer_masked = 0x4000
capabilities = { ari = 0x150 }

[sriov]
total = 8
enable = "all-or-none"

[virtual]
rom = "64K"
interrupt_pin = "none"

[[defect]]
text = "it lies"
source = "a nose"
item = "physical.flr"

[stand_in]
qemu = "igb"
options = { romfile = "", x = 3 }
"""


def test_a_profile_is_read_as_it_is_written() -> None:
    profile = parse_profile(WHOLE, "card")

    assert profile.physical.id == PciId(0x8086, 0x10C9)
    assert profile.physical.bars == {
        0: BarShape(0x20000, BarKind.MEM32),
        2: BarShape(32, BarKind.IO),
        3: BarShape(0x4000, BarKind.MEM64, prefetchable=True),
    }
    assert (profile.physical.rom, profile.virtual.rom) == (0, 0x10000)
    assert (profile.physical.interrupt_pin, profile.virtual.interrupt_pin) == (1, 0)
    assert (profile.physical.class_code, profile.physical.reset) == (0x020000, ("flr", "bus"))
    assert profile.sriov.enable is EnableRule.ALL_OR_NONE
    assert profile.sriov.stride is None
    assert profile.stand_in.options == {"romfile": "", "x": 3}
    assert profile.defects[0].item == "physical.flr"
    assert len(items(profile)) == 11 + 2 + 2


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('title = "a card"', "", "needs title, source"),
        ("msix = 10", "msixx = 10", "msixx"),
        ("msix = 10", 'msix = "10"', "it is a number"),
        ("msix = 10", "msix = true", "it is a number"),
        ("msix = 10", "msix = -1", "not negative"),
        ("flr = true", "flr = 1", "true or false"),
        ('rom = "none"', 'rom = "3K"', "not a size"),
        ('id = "8086:10c9"', 'id = "8086"', "not a PCI id"),
        ('class = "020000"', 'class = "0200"', "not a class code"),
        ('interrupt_pin = "A"', 'interrupt_pin = "E"', "is wrong"),
        ("2 =", "7 =", "unknown keys"),
        ('"32 io"', '"32 ports"', "is wrong"),
        ('"32 io"', '"io"', "not a BAR"),
        ("ari =", "harry =", "harry"),
        ('reset = ["flr", "bus"]', 'reset = ["flr", 3]', "not texts alone"),
        ('"all-or-none"', '"some"', "is wrong"),
        ("[sriov]", "[sriof]", "sriof"),
        ('source = "a nose"', "", "needs text and source"),
        ('item = "physical.flr"', 'item = "virtual.flr"', "does not say"),
        ("x = 3", "x = [3]", "is wrong"),
        ("[physical]", "[physical", "no TOML"),
        ("capabilities = { ari = 0x150 }", "capabilities = 3", "it is a table"),
    ],
)
def test_what_is_wrong_with_a_profile_is_said(old: str, new: str, words: str) -> None:
    assert old in WHOLE

    with pytest.raises(ConfigError) as error:
        parse_profile(WHOLE.replace(old, new, 1), "card")

    said = str(error.value)
    assert "card" in said
    assert words in said


@pytest.mark.parametrize("text", ["0", "3", "16k", "4096B", "-4", ""])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


def test_what_a_bar_prints_is_read_again() -> None:
    for text in ("128K mem32", "32 io", "16K mem64 pref", "1G mem64"):
        assert str(parse_bar(text)) == text


@pytest.mark.parametrize("path", sorted(paths.profiles_dir().glob("*.toml")), ids=lambda p: p.stem)
def test_our_own_profiles_are_whole(path: Path) -> None:
    profile = parse_profile(path.read_text(encoding="utf-8"), path.stem)

    assert profile.physical.id is not None and profile.virtual.id is not None
    assert profile.sriov.total and profile.sriov.first_offset and profile.sriov.stride
    assert profile.defects and all(one.source for one in profile.defects)
    assert bool(profile.stand_in.qemu) != bool(profile.stand_in.shapes)
    assert set(profile.stand_in.shapes) <= set(NAMED)
