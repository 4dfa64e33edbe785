"""Many shapes: chunk by chunk, here or in several processes, with what came out of each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.errors import MachineError
from harness.shapes.bench import Bench
from harness.shapes.generate import make_chunk, shrink
from harness.shapes.observe import Build, Observation, observe, observe_all
from harness.shapes.picture import picture
from harness.shapes.shape import Shape

CHUNK: Final = 48
"""Shapes that are made and judged in one go; part of what a seed means."""
MOST_SHRUNK: Final = 3
"""Kinds of failure of one chunk that are shrunk, the first of each; others stay as they are."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A shape that does not agree, mostly as small as it could be made."""

    shapes: tuple[Shape, ...]
    """The shape; with others if it agrees alone."""
    rule: str
    problem: str
    picture: str
    chunk: int
    count: int = 1
    """How many shapes of the chunk failed this way."""


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What came out of one chunk."""

    number: int
    shapes: int
    maps: int
    """Maps that were compared."""
    refused: int
    """Shapes that QEMU refused as it must."""
    seconds: float
    """For making and judging; shrinking apart."""
    floor: float
    """Seconds to start and quit the same QEMU without a device, just after."""
    known: dict[str, int] = field(default_factory=dict)
    """Shapes that met a known finding, by its page."""
    failures: tuple[Failure, ...] = ()


def run_chunk(qemu: Build, seed: int, number: int, size: int = CHUNK) -> ChunkResult:
    """Make and judge one chunk.

    :raise MachineError: QEMU cannot be started at all.
    """
    began = time.monotonic()
    shapes = make_chunk(seed, number, size)
    seen = observe_all(qemu, shapes)
    seconds = time.monotonic() - began
    return ChunkResult(
        number=number,
        shapes=len(seen),
        maps=sum(len(one.views) for one in seen),
        refused=sum(one.refusal is not None and not one.problem for one in seen),
        seconds=seconds,
        floor=floor(qemu),
        known=dict(Counter(one.known for one in seen if one.problem and one.known)),
        failures=tuple(_failures(qemu, seed, number, size, seen)),
    )


def floor(qemu: Build) -> float:
    """Return the seconds it takes to start and quit QEMU without a device."""
    began = time.monotonic()
    with Bench(qemu, ()) as bench:
        bench.quit()
    return time.monotonic() - began


def _failures(
    qemu: Build, seed: int, number: int, size: int, seen: Sequence[Observation]
) -> Iterator[Failure]:
    wrong = [one for one in seen if not one.agrees]
    counts = Counter(one.rule for one in wrong)
    for kind, rule in enumerate(counts):
        one = next(one for one in wrong if one.rule == rule)
        if not one.beside and kind < MOST_SHRUNK:
            smallest = shrink(seed, number, size, one.shape, _fails_by(qemu, rule))
            again = observe(qemu, smallest)
            one = one if again.agrees else again
        shapes = one.beside or (one.shape,)
        yield Failure(shapes, rule, one.problem, picture(one), number, counts[rule])


def _fails_by(qemu: Build, rule: str) -> Callable[[Shape], bool]:
    def fails(shape: Shape) -> bool:
        try:
            seen = observe(qemu, shape)
        except MachineError:
            return False
        return not seen.agrees and seen.rule == rule

    return fails
