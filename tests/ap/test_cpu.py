"""Registers of a processor, and those that a trap has saved."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.ap.cpu import PT_REGS_SIZE, Registers, Trapped
from harness.errors import ParseError

word = st.integers(0, (1 << 64) - 1)
words = st.lists(word, min_size=16, max_size=16)


def frame(mask: int, address: int, gprs: list[int], length: int = 4) -> bytes:
    """Return a ``struct pt_regs``."""
    data = bytearray(PT_REGS_SIZE)
    data[8:24] = mask.to_bytes(8, "big") + address.to_bytes(8, "big")
    data[24:152] = b"".join(one.to_bytes(8, "big") for one in gprs)
    data[160:162] = length.to_bytes(2, "big")
    return bytes(data)


@given(word, word, words)
def test_registers_are_read_in_the_order_of_the_stub(
    mask: int, address: int, gprs: list[int]
) -> None:
    data = b"".join(one.to_bytes(8, "big") for one in (mask, address, *gprs))

    assert Registers.parse(data + b"more") == Registers(mask, address, tuple(gprs))


@given(word, word, words, st.integers(0, 3))
def test_after_an_instruction_only_the_condition_code_and_what_it_set_differ(
    mask: int, address: int, gprs: list[int], cc: int
) -> None:
    trapped = Trapped.parse(frame(mask, address, gprs))
    after = trapped.after(cc, [*gprs[:1], 7, *gprs[2:]])
    offset, data = after.changed_part()
    whole = bytearray(frame(mask, address, gprs))
    whole[offset : offset + len(data)] = data
    again = Trapped.parse(bytes(whole))

    assert again == after
    assert again.mask ^ mask & ~(3 << 44) == again.mask & 3 << 44
    assert (again.mask >> 44 & 3, again.address, again.gprs[1]) == (cc, address, 7)


def test_the_problem_state_is_bit_15() -> None:
    assert Registers(0x0405_C001_8000_0000, 0, ()).in_user_space
    assert not Registers(0x0404_C001_8000_0000, 0, ()).in_user_space


def test_the_instruction_lies_before_the_address_it_returns_to() -> None:
    assert Trapped.parse(frame(0, 0x1004, [0] * 16, 4)).instruction_address == 0x1000


@pytest.mark.parametrize("size", [0, 1, 143])
def test_half_a_set_of_registers_is_refused(size: int) -> None:
    with pytest.raises(ParseError):
        Registers.parse(bytes(size))


def test_half_a_frame_is_refused() -> None:
    with pytest.raises(ParseError):
        Trapped.parse(bytes(PT_REGS_SIZE - 1))


@pytest.mark.parametrize("length", [1, 3, 5, 8, 0xFFFF])
def test_another_layout_shows_itself_in_the_length_of_the_instruction(length: int) -> None:
    with pytest.raises(ParseError, match="another layout"):
        Trapped.parse(frame(0, 0, [0] * 16, length))
