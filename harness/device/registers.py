"""Registers with handlers: a method that answers reads, and one that takes writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Register:
    """One register of a device class; made by `register`.

    Widths are those of the access: a handler gets and gives whole values.
    """

    def __init__(self, bar: int, offset: int, reader: Callable[[Any], int]) -> None:
        self.bar = bar
        self.offset = offset
        self._reader = reader
        self._writer: Callable[[Any, int], None] | None = None

    def write(self, writer: Callable[[Any, int], None]) -> Callable[[Any, int], None]:
        """Use the decorated method for writes; without one they are ignored."""
        self._writer = writer
        return writer

    def read(self, device: object) -> int:
        """Answer a read of *device*'s register."""
        return self._reader(device)

    def store(self, device: object, value: int) -> None:
        """Take a write to *device*'s register."""
        if self._writer is not None:
            self._writer(device, value)


def register(*, bar: int, offset: int) -> Callable[[Callable[[Any], int]], Register]:
    """Make the decorated method answer reads of the register at *offset* of BAR *bar*."""
    return lambda reader: Register(bar, offset, reader)


def registers_of(cls: type) -> dict[tuple[int, int], Register]:
    """Return the registers of a class and of those it comes from, by BAR and offset."""
    found: dict[tuple[int, int], Register] = {}
    for base in reversed(cls.__mro__):
        for value in vars(base).values():
            if isinstance(value, Register):
                found[value.bar, value.offset] = value
    return found
