"""The data that disk and DMA tests write: computable at any offset, on both sides.

The same function as ``images/probe/pattern.c``. All arithmetic is on 64-bit words::

    mix(x)       three times: x ^= x << 13; x ^= x >> 7; x ^= x << 17
    key(seed)    mix(seed ^ 0x9e3779b97f4a7c15)
    word(i)      mix(i ^ key(seed))
    byte at o    byte o % 8 of word(o // 8), the lowest first

``mix`` is a bijection (Marsaglia's xorshift, period 2**64 - 1), so all words of one seed
differ: data that landed at the wrong offset never looks right.
"""

from __future__ import annotations

from functools import cache

_MASK = (1 << 64) - 1
_SALT = 0x9E3779B97F4A7C15
_BLOCK_WORDS = 512
_BLOCK = _BLOCK_WORDS * 8


def _mix(x: int) -> int:
    for _ in range(3):
        x ^= (x << 13) & _MASK
        x ^= x >> 7
        x ^= (x << 17) & _MASK
    return x


@cache
def _low_words() -> int:
    """``mix(0) … mix(511)`` as one long number, the first word lowest."""
    words = b"".join(_mix(i).to_bytes(8, "little") for i in range(_BLOCK_WORDS))
    return int.from_bytes(words, "little")


def _block(key: int, number: int) -> bytes:
    # mix() is linear over xor: mix(high ^ low ^ key) == mix(high ^ key) ^ mix(low). One word
    # is computed per block and laid over the fixed ones; that makes a megabyte a millisecond.
    high = _mix((number * _BLOCK_WORDS) ^ key).to_bytes(8, "little") * _BLOCK_WORDS
    return (int.from_bytes(high, "little") ^ _low_words()).to_bytes(_BLOCK, "little")


def pattern(seed: int, offset: int, length: int) -> bytes:
    """Return *length* bytes of the pattern of *seed*, from byte *offset* on.

    :param seed: 0 to 2**64 - 1.
    :param offset: bytes, any alignment.
    :raise ValueError: an argument is out of range.
    """
    if not 0 <= seed <= _MASK:
        raise ValueError(f"seed {seed:#x} is not a 64-bit number")
    if offset < 0 or length < 0 or offset + length > 1 << 64:
        raise ValueError(f"{length} bytes from {offset:#x} are outside the 64-bit offset space")
    key = _mix(seed ^ _SALT)
    first, skip = divmod(offset, _BLOCK)
    blocks = (skip + length + _BLOCK - 1) // _BLOCK
    data = b"".join(_block(key, first + i) for i in range(blocks))
    return data[skip : skip + length]
