"""Choices that depend on the seed alone.

Hypothesis mixes constants that it finds in the modules of the program into small integers,
and so into every choice that is made by one: then a seed would mean other shapes wherever
other modules are loaded. It does so only where such a constant is permitted. So integers are
drawn from far up, where no constant is, and brought down.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")

_FAR_UP: Final = 3**40
"""No literal: that would be a constant to be found."""
_COIN: Final = st.booleans()


class Draw:
    """Makes choices; each shrinks to the first or least that there is."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def number(self, least: int, most: int) -> int:
        """Return an integer from *least* to *most*."""
        if most <= least:
            return least
        return self._draw(_integers(most - least)) - _FAR_UP + least

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of *choices*."""
        return choices[self.number(0, len(choices) - 1)]

    def coin(self) -> bool:
        """Return True or False."""
        return self._draw(_COIN)

    def one_in(self, count: int) -> bool:
        """Return True once in *count* times."""
        return self.number(0, count - 1) == count - 1

    def shuffled(self, values: Sequence[T]) -> list[T]:
        """Return *values* in any order."""
        left, order = list(values), []
        while left:
            order.append(left.pop(self.number(0, len(left) - 1)))
        return order


@functools.cache
def _integers(span: int) -> st.SearchStrategy[int]:
    return st.integers(_FAR_UP, _FAR_UP + span)
