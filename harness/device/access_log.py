"""What reached a device as messages: every trapped access, in order and counted.

An access that the client makes through a mapping never gets here; that is the point.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

KEPT: Final = 65536
"""Accesses kept in order; older ones are only counted."""
DISTINCT: Final = 65536
"""Different (region, offset, width, operation) counted apart; more go to one number."""

Operation = Literal["read", "write", "ioeventfd"]


class Access(NamedTuple):
    """One trapped access."""

    region: int
    """0 to 5: BARs, 6: ROM, 7: configuration space."""
    offset: int
    width: int
    """Bytes."""
    operation: Operation


class AccessLog:
    """Accesses in order, bounded, and how often each happened. Any thread may read it."""

    def __init__(self, kept: int = KEPT, distinct: int = DISTINCT) -> None:
        self._last: deque[Access] = deque(maxlen=kept)
        self._counts: Counter[Access] = Counter()
        self._distinct = distinct
        self._rest = 0
        self._lock = threading.Lock()

    def add(self, region: int, offset: int, width: int, operation: Operation) -> None:
        """Note one access."""
        access = Access(region, offset, width, operation)
        with self._lock:
            self._last.append(access)
            if access in self._counts or len(self._counts) < self._distinct:
                self._counts[access] += 1
            else:
                self._rest += 1

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._last.clear()
            self._counts.clear()
            self._rest = 0

    @property
    def total(self) -> int:
        """Return how many there were since the last `clear`."""
        with self._lock:
            return self._counts.total() + self._rest

    @property
    def counts(self) -> Counter[Access]:
        """Return how often each happened."""
        with self._lock:
            return Counter(self._counts)

    def count(
        self,
        region: int | None = None,
        *,
        offset: int | None = None,
        width: int | None = None,
        operation: Operation | None = None,
        inside: range | None = None,
    ) -> int:
        """Return how many fit; what is None fits all. *inside* is a range of offsets."""
        return sum(
            number
            for access, number in self.counts.items()
            if (region is None or access.region == region)
            and (offset is None or access.offset == offset)
            and (width is None or access.width == width)
            and (operation is None or access.operation == operation)
            and (inside is None or access.offset in inside)
        )

    def __iter__(self) -> Iterator[Access]:
        with self._lock:
            return iter(tuple(self._last))

    def __len__(self) -> int:
        return len(self._last)
