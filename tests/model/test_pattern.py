"""The data pattern of disk and DMA tests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.pattern import pattern

SEEDS = st.integers(0, 2**64 - 1)
MASK = 2**64 - 1


def _word(seed: int, index: int) -> int:
    """The definition in the docstring, word for word."""

    def mix(x: int) -> int:
        for _ in range(3):
            x ^= (x << 13) & MASK
            x ^= x >> 7
            x ^= (x << 17) & MASK
        return x

    return mix(index ^ mix(seed ^ 0x9E3779B97F4A7C15))


@given(seed=SEEDS, index=st.integers(0, 2**61 - 1))
def test_a_word_is_what_the_definition_says(seed: int, index: int) -> None:
    assert pattern(seed, index * 8, 8) == _word(seed, index).to_bytes(8, "little")


@given(seed=SEEDS, offset=st.integers(0, 2**40), length=st.integers(0, 20_000), data=st.data())
def test_a_piece_is_the_same_wherever_it_is_cut_from(
    seed: int, offset: int, length: int, data: st.DataObject
) -> None:
    whole = pattern(seed, offset, length)
    cut = data.draw(st.integers(0, length))

    assert len(whole) == length
    assert whole == pattern(seed, offset, cut) + pattern(seed, offset + cut, length - cut)


def test_no_two_words_of_a_megabyte_are_equal() -> None:
    data = pattern(1, 0, 1 << 20)

    assert len({data[i : i + 8] for i in range(0, len(data), 8)}) == len(data) // 8


def test_another_seed_gives_other_data() -> None:
    one, other = (pattern(seed, 0, 1 << 16) for seed in (1, 2))

    words = [{d[i : i + 8] for i in range(0, len(d), 8)} for d in (one, other)]
    assert words[0].isdisjoint(words[1])


@pytest.mark.parametrize(
    ("seed", "offset", "length"),
    [(-1, 0, 8), (2**64, 0, 8), (0, -8, 8), (0, 0, -1), (0, 2**64 - 4, 8)],
)
def test_what_is_outside_64_bits_is_refused(seed: int, offset: int, length: int) -> None:
    with pytest.raises(ValueError, match="64-bit"):
        pattern(seed, offset, length)
