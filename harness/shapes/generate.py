"""Shapes from a seed, chunk by chunk, and the smallest one that still fails.

A chunk is made without looking at any machine, so that many shapes can be judged together. To
shrink, the same examples are made again: what is known to be well passes at once, and from the
one that is not hypothesis goes on by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from typing import Final

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as with_seed
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.errors import HypothesisException

from harness import paths
from harness.shapes.shape import Shape
from harness.shapes.strategies import shapes

MOST_TRIES: Final = 200
"""Candidates that are looked at when a shape is shrunk."""
MOST_SECONDS: Final = 240.0
"""And for how long: a shape that makes QEMU hang takes long to look at."""

Judge = Callable[[Shape], bool]
"""Says whether a shape fails in the way that is being shrunk."""


def keep_files_in_cache() -> None:
    """Let hypothesis write its files to the cache; without, it does so where we are."""
    set_hypothesis_home_dir(paths.cache_dir() / "hypothesis")


def make_chunk(seed: int, number: int, size: int) -> list[Shape]:
    """Return *size* different shapes, the same ones for the same numbers."""
    found: dict[Shape, None] = {}
    turn = 0
    while len(found) < size:
        for shape in _examples(seed, number, turn, size):
            found.setdefault(shape)
        turn += 1
    return list(found)[:size]


def shrink(seed: int, number: int, size: int, failing: Shape, fails: Judge) -> Shape:
    """Return the smallest shape found that *fails*, *failing* itself if there is none smaller.

    :param failing: of the chunk that `make_chunk` returns for these numbers.
    """
    turn = 0
    while True:
        examples = _examples(seed, number, turn, size)
        if failing in examples:
            return _Shrinker(examples, failing, fails).run(seed, number, turn, size)
        if not examples:
            return failing
        turn += 1


class _Failed(Exception):
    pass


class _Shrinker:
    def __init__(self, examples: list[Shape], failing: Shape, fails: Judge) -> None:
        self.verdicts = {shape: shape == failing for shape in examples}
        self.smallest = failing
        self.fails = fails
        self.tries = 0
        self.end = time.monotonic() + MOST_SECONDS

    def look(self, shape: Shape) -> None:
        if shape not in self.verdicts:
            self.tries += 1
            may_look = self.tries <= MOST_TRIES and time.monotonic() < self.end
            self.verdicts[shape] = may_look and self.fails(shape)
        if self.verdicts[shape]:
            self.smallest = shape
            raise _Failed

    def run(self, seed: int, number: int, turn: int, size: int) -> Shape:
        with contextlib.suppress(_Failed, HypothesisException):
            _hypothesis(seed, number, turn, size, self.look, (Phase.generate, Phase.shrink))
        return self.smallest


def _examples(seed: int, number: int, turn: int, size: int) -> list[Shape]:
    found: list[Shape] = []
    _hypothesis(seed, number, turn, size, found.append, (Phase.generate,))
    return found


def _hypothesis(
    seed: int,
    number: int,
    turn: int,
    size: int,
    body: Callable[[Shape], None],
    phases: tuple[Phase, ...],
) -> None:
    text = f"trapline shapes {seed} {number} {turn}"
    value = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

    @with_seed(value)
    @settings(
        max_examples=size + size // 4,
        phases=phases,
        database=None,
        deadline=None,
        derandomize=False,
        print_blob=False,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(shapes())
    def example(shape: Shape) -> None:
        body(shape)

    example()
