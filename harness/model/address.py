"""Address ranges: start and size in bytes, printed as QEMU prints them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_RANGE = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})")


@dataclass(frozen=True, slots=True, order=True)
class AddressRange:
    """A non-empty range of addresses; ``start`` and ``size`` in bytes.

    QEMU prints ranges with an inclusive end; ``last`` is that end, ``end`` is one past it.
    """

    start: int
    size: int

    def __post_init__(self) -> None:
        if self.start < 0 or self.size <= 0:
            raise ValueError(f"not a range: start {self.start:#x}, size {self.size:#x}")

    @classmethod
    def of(cls, start: int, end: int) -> AddressRange:
        """Return the range from *start* up to, not including, *end*."""
        return cls(start, end - start)

    @classmethod
    def parse(cls, text: str) -> AddressRange:
        """Read ``0000000000001000-0000000000001fff`` (the end is inclusive)."""
        match = _RANGE.fullmatch(text)
        if match is None:
            raise ValueError(f"not an address range: {text!r}")
        start, last = (int(group, 16) for group in match.groups())
        return cls(start, last - start + 1)

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.start + self.size

    @property
    def last(self) -> int:
        """The last address inside."""
        return self.end - 1

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.end

    def covers(self, other: AddressRange) -> bool:
        """Say whether *other* lies wholly inside."""
        return self.start <= other.start and other.end <= self.end

    def overlaps(self, other: AddressRange) -> bool:
        """Say whether the two share at least one byte."""
        return self.start < other.end and other.start < self.end

    def intersection(self, other: AddressRange) -> AddressRange | None:
        """Return the shared part, or None."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return AddressRange(start, end - start) if start < end else None

    def shifted(self, by: int) -> AddressRange:
        """Return the same size, *by* bytes higher."""
        return AddressRange(self.start + by, self.size)

    def page_aligned(self, page: int) -> bool:
        """Say whether both ends fall on page boundaries."""
        return self.start % page == 0 and self.end % page == 0

    def pages(self, page: int) -> Iterator[AddressRange]:
        """Yield every page that has a byte in the range, lowest first."""
        for start in range(self.start - self.start % page, self.end, page):
            yield AddressRange(start, page)

    def __str__(self) -> str:
        return f"{self.start:016x}-{self.last:016x}"
