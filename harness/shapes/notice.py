"""How soon shapes notice that the oracle has lost a rule."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from harness.shapes.generate import make_chunk
from harness.shapes.mutants import Mutant, mutants
from harness.shapes.observe import Build, Observation, judge_again, observe_all

CHUNK: Final = 16


@dataclass(frozen=True, slots=True)
class Notice:
    """One mutant, and the first shape that did not agree with it."""

    mutant: Mutant
    seconds: float
    shapes: int
    """Shapes that were judged, that one's chunk included."""
    said: str
    """What the comparison said of it; empty if nobody noticed."""

    def line(self) -> str:
        """Return it for a table."""
        if not self.said:
            how = f"NOT NOTICED in {self.seconds:.0f} s, {self.shapes} shapes"
        else:
            how = f"noticed after {self.seconds:4.1f} s, {self.shapes:4} shapes"
        return f"{self.mutant.rule:<7} {self.mutant.name:<55} {how}"


def notices(qemu: Build, seed: int, seconds: float) -> Iterator[Notice]:
    """Yield for each mutant how long it took; *seconds* at most."""
    for mutant in mutants():
        yield notice(qemu, mutant, seed, seconds)


def notice(qemu: Build, mutant: Mutant, seed: int, seconds: float) -> Notice:
    """Judge shapes by *mutant* until one does not agree, or the time is up."""
    began = time.monotonic()
    count = number = 0
    while time.monotonic() - began < seconds:
        chunk = make_chunk(seed, number, CHUNK)
        with mutant.in_place():
            seen = observe_all(qemu, chunk)
        count, number = count + len(seen), number + 1
        wrong = next((one for one in seen if _is_due_to_mutant(one, qemu)), None)
        if wrong is not None:
            return Notice(mutant, time.monotonic() - began, count, wrong.problem)
    return Notice(mutant, time.monotonic() - began, count, "")


def _is_due_to_mutant(seen: Observation, qemu: Build) -> bool:
    """Say whether the whole oracle agrees with what its mutant does not agree with."""
    if seen.agrees or seen.beside:
        return False
    return judge_again(seen, qemu.version).agrees
