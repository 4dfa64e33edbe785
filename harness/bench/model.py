"""What a benchmark is: subjects measured in turns, and what is asked of them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

Sample = Mapping[str, float]
"""One measurement: by measure, in its unit."""


class Role(StrEnum):
    """What a subject stands for in a comparison."""

    OURS = "ours"
    FLOOR = "floor"
    """The least that is possible: the same by hand."""
    PEER = "peer"
    """Another tool, or another way of ours, for the same end."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A quantity that a benchmark measures."""

    name: str
    unit: str = "s"
    more_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that can be measured again and again.

    :param run: measures once; gets an empty directory of its own for evidence.
    :param missing: why it cannot be measured here, and what would enable it; else empty.
    :param rounds: at most so many; for what costs much and varies little.
    """

    name: str
    role: Role
    run: Callable[[Path], Sample]
    missing: str = ""
    rounds: int = 1_000_000

    @classmethod
    def absent(cls, name: str, role: Role, why: str) -> Subject:
        """Return a subject that is named in the results and cannot be measured here."""
        return cls(name, role, lambda _: {}, missing=why)


@dataclass(frozen=True, slots=True)
class Asked:
    """A demand on the results, told beside them; it decides nothing.

    Without *over* it is on a median, with it on the ratio ``of / over`` in pairs.
    """

    text: str
    measure: str
    of: str
    limit: float
    over: str = ""
    at_most: bool = True

    def holds(self, value: float) -> bool:
        """Say whether *value* is as demanded."""
        return value <= self.limit if self.at_most else value >= self.limit


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Subjects that are measured in turns."""

    name: str
    title: str
    measures: Sequence[Measure]
    subjects: Sequence[Subject]
    asked: Sequence[Asked] = ()
    notes: Sequence[str] = field(default=())
    """What a reader must know to judge the figures."""
    is_pictured: bool = False
    """Show where the time goes of the measurement of each subject that is nearest its median."""


def turns(count: int, round_number: int) -> list[int]:
    """Return the order of *count* subjects in a round: forth in even rounds, back in odd ones.

    So A B B A A B …: what drifts steadily favours neither.
    """
    order = list(range(count))
    return order if round_number % 2 == 0 else order[::-1]
