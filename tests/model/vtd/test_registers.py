"""Bits of the VT-d registers by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.vtd.registers import (
    CAP,
    ECAP,
    FSTS,
    GSTS,
    VER,
    Capability,
    GlobalStatus,
    Layout,
    Version,
)


def test_registers_of_qemu_are_decoded() -> None:
    assert str(Version(0x10)) == "1:0"
    assert Capability(0x00D2008C222F0686).caching_mode
    assert not Capability(0x00D2008C222F0606).caching_mode
    assert GlobalStatus(0xC7000000).translating
    assert not GlobalStatus(0x47000000).translating


@pytest.mark.parametrize("layout", [VER, CAP, ECAP, GSTS, FSTS], ids=lambda item: item.name)
def test_fields_do_not_overlap_and_fit(layout: Layout) -> None:
    taken = 0
    for field in layout.fields:
        assert not taken & field.mask, field
        taken |= field.mask
    assert taken < 1 << layout.width
    assert len({field.name for field in layout.fields}) == len(layout.fields)


def test_differences_are_said_in_words() -> None:
    found = CAP.differences(0x00D2008C222F0606, 0x00D2008C222F0686 | 1 << 57)

    assert found == (
        "CAP.CM (bit 7, caching mode) is 0x0, expected 0x1",
        "CAP: bits without a name 0x200000000000000 are 0x0, expected 0x200000000000000",
    )


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_there_are_words_for_every_difference(seen: int, expected: int, ignore: int) -> None:
    assert bool(CAP.differences(seen, expected, ignore)) == bool((seen ^ expected) & ~ignore)


def test_unknown_field_is_an_error() -> None:
    with pytest.raises(KeyError, match="NOPE"):
        CAP.field("NOPE")
