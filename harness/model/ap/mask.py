"""256-bit masks of adapters and domains, in the syntaxes the kernel takes and prints.

Bit 0 is the leftmost. Written in full, a mask is padded with zeros on the right; written as
changes (``+5,-0x47``) it starts from what was there (drivers/s390/crypto/ap_bus.c).
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness.model.ap.errno import Errno, KernelError
from harness.model.ap.id import IDS, simple_strtoul

_ALL = (1 << IDS) - 1
_HEX = set(string.hexdigits)


@dataclass(frozen=True, slots=True)
class ApMask:
    """A set of adapter or domain ids, 0 to 255; ``value`` has id 0 as its highest bit."""

    value: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.value <= _ALL:
            raise ValueError(f"not a mask of {IDS} bits: {self.value:#x}")

    @classmethod
    def of(cls, ids: Iterable[int]) -> ApMask:
        """Return the mask with the bits of *ids*."""
        value = 0
        for number in ids:
            value |= _bit(number)
        return cls(value)

    @classmethod
    def full(cls) -> ApMask:
        """Return the mask with every bit: what apmask and aqmask are by default."""
        return cls(_ALL)

    @classmethod
    def written(cls, text: str) -> ApMask:
        """Read a mask in full, as ``ap_hex2bitmap`` does.

        ``0x`` may be left out, as may the 0 of it; one newline may follow; short is padded with
        zeros on the right, and nothing at all is the empty mask.

        :raise KernelError: EINVAL for another character, or more than 64 digits.
        """
        if text.startswith("0x"):
            text = text[1:]
        text = text.removeprefix("x")
        digits = 0
        while digits < min(len(text), IDS // 4) and text[digits] in _HEX:
            digits += 1
        if text[digits:] not in ("", "\n"):
            raise KernelError(Errno.EINVAL)
        return cls(int(text[:digits].ljust(IDS // 4, "0"), 16))

    def changed(self, text: str) -> ApMask:
        """Return what writing *text* makes of this mask (``ap_parse_bitmap_str``).

        :raise KernelError: EINVAL.
        """
        return self.relative(text) if text[:1] in ("+", "-") else self.written(text)

    def relative(self, text: str) -> ApMask:
        """Apply ``+5,-7-9,+0x41`` from left to right (``modify_bitmap``).

        Commas and newlines separate, but nothing demands one. Numbers above 64 bits wrap.

        :raise KernelError: EINVAL for a missing sign or number, an id above 255, or a range
            that runs backwards.
        """
        value, at = self.value, 0
        while at < len(text):
            sign = text[at]
            if sign not in "+-":
                raise KernelError(Errno.EINVAL)
            first, used = simple_strtoul(text[at + 1 :])
            at += 1 + used
            last = first
            if not used or first >= IDS:
                raise KernelError(Errno.EINVAL)
            if text[at : at + 1] == "-":
                last, used = simple_strtoul(text[at + 1 :])
                at += 1 + used
                if not used or not first <= last < IDS:
                    raise KernelError(Errno.EINVAL)
            bits = ApMask.of(range(first, last + 1)).value
            value = value | bits if sign == "+" else value & ~bits
            while text[at : at + 1] in (",", "\n"):
                at += 1
        return ApMask(value)

    def changes_to(self, other: ApMask) -> str:
        """Return the shortest relative text that turns this mask into *other*: ``-5,-6``.

        Empty if they are the same: writing that would clear every bit.
        """
        added, removed = other - self, self - other
        return ",".join([*_runs("-", removed), *_runs("+", added)])

    def with_bit(self, number: int) -> ApMask:
        """Return this mask and the bit of *number*."""
        return ApMask(self.value | _bit(number))

    def without_bit(self, number: int) -> ApMask:
        """Return this mask less the bit of *number*."""
        return ApMask(self.value & ~_bit(number))

    @property
    def words(self) -> tuple[int, int, int, int]:
        """The mask as four 64-bit words, leftmost first, as it lies in a CRYCB."""
        low = (1 << 64) - 1
        a, b, c, d = (self.value >> shift & low for shift in (192, 128, 64, 0))
        return a, b, c, d

    @property
    def first(self) -> int | None:
        """The lowest id, None if there is none."""
        return next(iter(self), None)

    @property
    def last(self) -> int | None:
        """The highest id, None if there is none."""
        lowest = self.value & -self.value
        return IDS - lowest.bit_length() if lowest else None

    def __contains__(self, number: int) -> bool:
        return bool(self.value & _bit(number))

    def __iter__(self) -> Iterator[int]:
        return (number for number in range(IDS) if self.value >> (IDS - 1 - number) & 1)

    def __len__(self) -> int:
        return self.value.bit_count()

    def __and__(self, other: ApMask) -> ApMask:
        return ApMask(self.value & other.value)

    def __or__(self, other: ApMask) -> ApMask:
        return ApMask(self.value | other.value)

    def __sub__(self, other: ApMask) -> ApMask:
        return ApMask(self.value & ~other.value)

    def __invert__(self) -> ApMask:
        return ApMask(self.value ^ _ALL)

    def __le__(self, other: ApMask) -> bool:
        return not self.value & ~other.value

    def __repr__(self) -> str:
        return f"ApMask.of({list(self)})"

    def __str__(self) -> str:
        return f"0x{self.value:0{IDS // 4}x}"


def _bit(number: int) -> int:
    if not 0 <= number < IDS:
        raise ValueError(f"adapters and domains are 0 to {IDS - 1}, not {number}")
    return 1 << (IDS - 1 - number)


def _runs(sign: str, mask: ApMask) -> Iterator[str]:
    """Yield ``-5`` or ``-7-9`` for each run of ids, hexadecimal from 10 on."""
    ids = list(mask)
    while ids:
        length = 1
        while length < len(ids) and ids[length] == ids[0] + length:
            length += 1
        first, last = ids[0], ids[length - 1]
        # A run of two reads better as two.
        if length < 3:
            yield from (f"{sign}{_number(one)}" for one in ids[:length])
        else:
            yield f"{sign}{_number(first)}-{_number(last)}"
        del ids[:length]


def _number(number: int) -> str:
    return str(number) if number < 10 else f"{number:#x}"
