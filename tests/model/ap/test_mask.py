"""Masks of adapters and domains: both syntaxes that are written, and what is shown."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.model.ap.errno import Errno, KernelError
from harness.model.ap.mask import ApMask

ids = st.integers(0, 255)
masks = st.builds(ApMask, st.integers(0, 2**256 - 1))
spellings = st.sampled_from(["{}", "{:#x}", "{:#X}", "0{:o}"])


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, list[tuple[str, int, int]]]:
    """Return a relative text, and the steps it is made of."""
    text, steps = "", []
    for _ in range(draw(st.integers(1, 6))):
        sign, first = draw(st.sampled_from("+-")), draw(ids)
        last = draw(st.one_of(st.just(first), st.integers(first, 255)))
        text += sign + draw(spellings).format(first)
        if last != first or draw(st.booleans()):
            text += "-" + draw(spellings).format(last)
        # Nothing demands a comma: the sign of the next item is enough, if it is no range.
        text += draw(st.sampled_from([",", "\n", ",,"]))
        steps.append((sign, first, last))
    return text, steps


@pytest.mark.rule("AP-03")
@given(masks)
def test_a_mask_is_shown_as_64_digits_and_read_back(mask: ApMask) -> None:
    assert len(str(mask)) == 66
    assert ApMask.written(f"{mask}\n") == mask == ApMask().changed(str(mask))


@pytest.mark.rule("AP-03")
@given(ids)
def test_bit_0_is_the_leftmost(number: int) -> None:
    mask = ApMask.of([number])

    assert f"{int(str(mask), 16):0256b}".index("1") == number
    assert list(mask) == [number] == [mask.first]


@pytest.mark.rule("AP-03")
def test_by_default_the_host_owns_all() -> None:
    assert str(ApMask.full()) == "0x" + 64 * "f"
    assert len(ApMask.full()) == 256


@pytest.mark.rule("AP-05")
@pytest.mark.parametrize(
    ("text", "ids"),
    [("5", [1, 3]), ("0x41", [1, 7]), ("0x41\n", [1, 7]), ("x41", [1, 7]), ("41", [1, 7]),
     ("0xffff", range(16)), ("0x", []), ("", []), ("\n", []), ("x", []),
     ("0x" + 64 * "f", range(256)), (64 * "0" + "\n", [])],
)  # fmt: skip
def test_a_short_mask_is_padded_on_the_right(text: str, ids: list[int]) -> None:
    assert ApMask.full().changed(text) == ApMask.of(ids)


@pytest.mark.rule("AP-05")
@pytest.mark.parametrize(
    "text",
    ["0x" + 65 * "0", 65 * "f", "0xg", "0X41", "0x41 ", " 0x41", "0x41\n\n", "xx1", ",+5", "5,6"],
)
def test_a_long_or_foreign_mask_is_refused(text: str) -> None:
    with pytest.raises(KernelError) as refused:
        ApMask().changed(text)

    assert refused.value.errno is Errno.EINVAL


@pytest.mark.rule("AP-05")
@given(masks, changes())
def test_changes_are_applied_from_left_to_right(
    mask: ApMask, written: tuple[str, list[tuple[str, int, int]]]
) -> None:
    text, steps = written
    expected = set(mask)
    for sign, first, last in steps:
        touched = set(range(first, last + 1))
        expected = expected | touched if sign == "+" else expected - touched

    assert set(mask.changed(text)) == expected


@pytest.mark.rule("AP-05")
@pytest.mark.parametrize(
    ("text", "ids"),
    [("+0,-6,+0x47,-0xf0\n", [0, 5, 0x47]), ("+1+2", [1, 2, 5, 6]), ("-5-6", []),
     ("+1,", [1, 5, 6]), ("+010", [5, 6, 8]), ("+18446744073709551617", [1, 5, 6]),
     ("+0-255,-128", [i for i in range(256) if i != 128])],
)  # fmt: skip
def test_items_are_numbers_and_ranges_with_a_sign(text: str, ids: list[int]) -> None:
    assert list(ApMask.of([5, 6]).changed(text)) == ids


@pytest.mark.rule("AP-05")
@pytest.mark.parametrize(
    "text",
    ["+256", "-0x100", "+", "-", "+5 ", "+5, +6", "+5,6", "+-5", "+0x", "+5-", "+7-5", "+5-256",
     "-5x"],
)  # fmt: skip
def test_what_is_no_change_is_refused(text: str) -> None:
    with pytest.raises(KernelError) as refused:
        ApMask.full().changed(text)

    assert refused.value.errno is Errno.EINVAL


@given(masks, masks)
def test_the_shortest_change_leads_from_one_mask_to_the_other(old: ApMask, new: ApMask) -> None:
    assume(old != new)

    assert old.changed(old.changes_to(new)) == new


def test_a_change_is_written_as_one_reads_it() -> None:
    assert ApMask.full().changes_to(~ApMask.of([5, 6])) == "-5,-6"
    assert ApMask.full().changes_to(~ApMask.of([4, 0x47, 0xAB, 0xFF])) == "-4,-0x47,-0xab,-0xff"
    assert ApMask().changes_to(ApMask.of(range(3, 12))) == "+3-0xb"
    assert ApMask().changes_to(ApMask()) == ""


@given(masks, masks, ids)
def test_masks_are_sets(one: ApMask, other: ApMask, number: int) -> None:
    assert set(one & other) == set(one) & set(other)
    assert set(one | other) == set(one) | set(other)
    assert set(one - other) == set(one) - set(other)
    assert set(~one) == set(range(256)) - set(one)
    assert (one <= other) == (set(one) <= set(other))
    assert number in one.with_bit(number)
    assert number not in one.without_bit(number)
    assert len(one) == len(set(one))
    assert one.last == max(one, default=None)
    assert one.first == min(one, default=None)


@given(masks)
def test_words_are_the_mask_from_left_to_right(mask: ApMask) -> None:
    assert "0x" + "".join(f"{word:016x}" for word in mask.words) == str(mask)


def test_ids_above_255_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="not 256"):
        ApMask.of([256])
    with pytest.raises(ValueError, match="256 bits"):
        ApMask(1 << 256)
