"""What the hardware would interpret: SIE blocks and crypto control blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.ap.sie import SyntheticExit, find_sie, read_sie_entry
from harness.errors import ParseError
from harness.model.ap.mask import ApMask

BLOCK, CRYCB = 0x10000, 0x20000
masks = st.frozensets(st.integers(0, 255), max_size=12).map(ApMask.of)


class Memory:
    def __init__(self, form: int, crycb: bytes, eca: int = 8) -> None:
        block = bytearray(512)
        block[0x4C:0x50] = eca.to_bytes(4, "big")
        block[0xFC:0x100] = (CRYCB | form).to_bytes(4, "big")
        self.content = {BLOCK: bytes(block), CRYCB: crycb}

    def read(self, address: int, size: int) -> bytes:
        return self.content[address][:size]


def format2(adapters: ApMask, domains: ApMask, control: ApMask) -> bytes:
    words = b"".join(mask.value.to_bytes(32, "big") for mask in (adapters, domains, control))
    return bytes(0x80) + words + bytes(0x20)


@given(masks, masks, masks)
def test_masks_of_256_bits_are_read(adapters: ApMask, domains: ApMask, control: ApMask) -> None:
    entry = read_sie_entry(BLOCK, Memory(3, format2(adapters, domains, control)).read)

    assert (entry.format, entry.interprets, entry.block) == (2, True, BLOCK)
    assert (entry.adapters, entry.domains, entry.control_domains) == (adapters, domains, control)


@pytest.mark.parametrize("form", [0, 1])
def test_masks_of_64_bits_are_read(form: int) -> None:
    crycb = bytearray(256)
    crycb[0], crycb[8], crycb[16] = 0x04, 0x08, 0x01
    entry = read_sie_entry(BLOCK, Memory(form, bytes(crycb)).read)

    assert entry.format == form
    assert [list(m) for m in (entry.adapters, entry.domains, entry.control_domains)] == [
        [5], [4], [7],
    ]  # fmt: skip


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ParseError, match="unknown format"):
        read_sie_entry(BLOCK, Memory(2, bytes(256)).read)


def test_a_guest_whose_instructions_are_not_interpreted_is_seen_as_that() -> None:
    empty = format2(ApMask(), ApMask(), ApMask())

    assert not read_sie_entry(BLOCK, Memory(3, empty, eca=0).read).interprets


def test_an_entry_says_what_it_has() -> None:
    crycb = format2(ApMask.of([5, 6]), ApMask.of([0xAB]), ApMask())
    entry = read_sie_entry(BLOCK, Memory(3, crycb).read)

    assert str(entry) == "CRYCB format 2, adapters 05,06, domains ab, control -"


def test_a_synthetic_exit_says_that_the_guest_executed_an_instruction() -> None:
    made = SyntheticExit(bytes.fromhex("b2af0000"), ((0, 0x03000504),))

    assert made.writes(BLOCK) == (
        (BLOCK + 0x50, b"\x04"),
        (BLOCK + 0x56, b"\xb2\xaf"),
        (BLOCK + 0x58, bytes(4)),
    )


def test_the_instruction_is_found_at_an_instruction_not_in_one() -> None:
    # stmg with b214 in its displacement, then lgr, then sie.
    code = bytes.fromhex("eb6fb2140024b90400e2b214e000")

    assert find_sie(code) == 10


@pytest.mark.parametrize("code", [b"", bytes.fromhex("eb6fb2140024"), bytes.fromhex("07fe07fe")])
def test_code_without_the_instruction_is_refused(code: bytes) -> None:
    with pytest.raises(ParseError, match="no SIE"):
        find_sie(code)
