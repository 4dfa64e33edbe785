"""Option sets chosen pairwise: few of them, and every pair of values of two options together.

Most defects that depend on several options depend on two. All combinations of ten options with
two values are 1024, all pairs are in about ten. ``TRAPLINE_COMBINATIONS=all`` chooses them all,
a number t every t values together (`how_many`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from allpairspy import AllPairs  # type: ignore[import-untyped]

VARIABLE: Final = "TRAPLINE_COMBINATIONS"
"""The environment variable that says how many options are combined at a time."""
PAIRS: Final = 2
ALL: Final = 0

Value = TypeVar("Value")
Row = Mapping[str, Value]
"""An option set: a value for each option, by its name."""


class BadStrength(ValueError):
    """The number of options to be combined makes no sense."""


@dataclass(frozen=True, slots=True)
class Strength:
    """How many options are combined with each other, value by value; `ALL` for all of them."""

    count: int = PAIRS

    @classmethod
    def parse(cls, text: str) -> Strength:
        """Read the value of `VARIABLE`: empty, ``pairs``, ``all``, or a number from 1 on.

        :raise BadStrength: it is something else.
        """
        words = {"": PAIRS, "pairs": PAIRS, "all": ALL}
        if text in words:
            return cls(words[text])
        if not text.isascii() or not text.isdigit() or int(text) < 1:
            raise BadStrength(f"{VARIABLE}={text!r}: it takes pairs, all, or a number from 1 on")
        return cls(int(text))


def combine(
    options: Mapping[str, Sequence[Value]],
    strength: Strength = Strength(),
    *,
    possible: Callable[[Mapping[str, Value]], bool] | None = None,
) -> list[dict[str, Value]]:
    """Return option sets in which every *strength* values of different options come together.

    The same for the same arguments. An option of one value is in every set.

    :param options: the values of each option, by its name; the first of each make the first set.
    :param possible: which sets, and which parts of a set, can be at all. A part is given while a
        set is built: what it does not name may still be anything.
    """
    if not options or not all(options.values()):
        return []
    can_be = possible or (lambda _: True)
    names = list(options)
    if strength.count == ALL or strength.count >= len(names):
        return [row for row in _every(options) if can_be(row)]

    def part(values: Sequence[Value]) -> bool:
        return can_be(dict(zip(names, values, strict=False)))

    if strength.count == 1:
        chosen = [row for row in _each_once(options) if can_be(row)]
    else:
        found = AllPairs(list(options.values()), filter_func=part, n=strength.count)
        chosen = [dict(zip(names, row, strict=True)) for row in found]
    if strength.count == PAIRS and possible is None:
        return chosen
    return _with_what_is_missing(options, chosen, strength, can_be)


def _with_what_is_missing(
    options: Mapping[str, Sequence[Value]],
    chosen: list[dict[str, Value]],
    strength: Strength,
    possible: Callable[[Mapping[str, Value]], bool],
) -> list[dict[str, Value]]:
    """Return *chosen* with a set for what does not come together in it.

    allpairspy 2.5.1 leaves something out where sets are ruled out, and of more than two.
    """
    while lost := missing(options, chosen, strength, possible=possible):
        found = _completed(options, dict(lost[0]), possible)
        assert found is not None  # else it would not be missed
        chosen.append(found)
    return chosen


def together(
    rows: Sequence[Mapping[str, Value]], count: int = PAIRS
) -> frozenset[tuple[tuple[str, Value], ...]]:
    """Return every *count* values of different options that come together in one of *rows*."""
    return frozenset(
        found
        for row in rows
        for found in itertools.combinations(sorted(row.items(), key=_name), count)
    )


def missing(
    options: Mapping[str, Sequence[Value]],
    rows: Sequence[Mapping[str, Value]],
    strength: Strength = Strength(),
    *,
    possible: Callable[[Mapping[str, Value]], bool] = lambda _: True,
) -> list[tuple[tuple[str, Value], ...]]:
    """Return what should come together in *rows*, could, and does not; in the order of names.

    :param possible: as for `combine`: what is in no set that can be is not missed.
    """
    count = min(strength.count or len(options), len(options))
    there = together(rows, count)
    wanted = (
        tuple(zip(names, values, strict=True))
        for names in itertools.combinations(sorted(options), count)
        for values in itertools.product(*(options[name] for name in names))
    )
    lost = (found for found in wanted if found not in there)
    return [one for one in lost if _completed(options, dict(one), possible) is not None]


def _completed(
    options: Mapping[str, Sequence[Value]],
    fixed: Mapping[str, Value],
    possible: Callable[[Mapping[str, Value]], bool],
) -> dict[str, Value] | None:
    """Return the first set that can be and has the *fixed* values, None if there is none."""
    if not possible(fixed):
        return None
    free = next((name for name in options if name not in fixed), None)
    if free is None:
        return {name: fixed[name] for name in options}
    for value in options[free]:
        found = _completed(options, {**fixed, free: value}, possible)
        if found is not None:
            return found
    return None


def _every(options: Mapping[str, Sequence[Value]]) -> Iterator[dict[str, Value]]:
    for row in itertools.product(*options.values()):
        yield dict(zip(options, row, strict=True))


def _name(item: tuple[str, object]) -> str:
    return item[0]


def _each_once(options: Mapping[str, Sequence[Value]]) -> Iterator[dict[str, Value]]:
    for number in range(max(map(len, options.values()))):
        yield {name: values[min(number, len(values) - 1)] for name, values in options.items()}
