"""Waiting until the kernel would say more of what it says ten times in five seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from harness.guest.rate_limit import mark_with_room
from harness.guest.system import System
from harness.guest.transport import Completed

WORDS = "no token"


@dataclass
class Kernel:
    """A system whose log does not grow, and whose time goes on by a second with each look."""

    now: float
    lines: Sequence[str] = field(default_factory=list)
    name: str = "there"
    looks: int = 0

    def run(self, command: str) -> Completed:
        self.looks += 1
        self.now += 1
        return Completed(command, 0, "\n".join([f"{self.now:.2f}", *self.lines]), "")


def said(count: int, *, at: float, text: str = WORDS) -> list[str]:
    return [f"[{at + n / 1000:12.6f}] device: {text}" for n in range(count)]


def mark(kernel: Kernel, wanted: int = 1) -> int:
    return mark_with_room(
        cast(System, cast(Any, kernel)),
        wanted,
        lambda lines: sum(WORDS in line for line in lines),
        what="a token",
    )


def test_an_empty_log_is_a_mark() -> None:
    assert mark(Kernel(100)) == 0


@pytest.mark.parametrize(("count", "wanted"), [(9, 1), (7, 3)])
def test_what_there_is_room_for_is_not_waited_for(count: int, wanted: int) -> None:
    kernel = Kernel(100, said(count, at=100))

    assert mark(kernel, wanted) == count
    assert kernel.looks == 1


@pytest.mark.parametrize(("count", "wanted"), [(10, 1), (8, 3)])
def test_it_waits_for_the_end_of_the_interval(count: int, wanted: int) -> None:
    kernel = Kernel(100, said(count, at=100))

    mark(kernel, wanted)

    assert kernel.now > 105


def test_other_lines_and_lines_without_a_time_do_not_count() -> None:
    lines = [*said(9, at=100), *["device: " + WORDS] * 5, *said(50, at=100.5, text="other words")]
    kernel = Kernel(100, lines)

    assert mark(kernel) == len(lines)
    assert kernel.looks == 1
