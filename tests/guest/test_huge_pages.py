"""Huge pages, and a Linux that does not find as many as it is asked for."""

from __future__ import annotations

from typing import Any, cast

import pytest

from harness.errors import GuestError
from harness.guest.huge_pages import NUMBER, huge_pages
from harness.guest.system import System
from harness.guest.transport import Transport


class Memory(System):
    """A system that has *pages*, and memory for *room* at most."""

    def __init__(self, pages: int, *, room: int) -> None:
        super().__init__(cast(Transport, cast(Any, None)), level="L1")
        self.pages, self.room = pages, room

    @property
    def name(self) -> str:
        return "there"

    def exists(self, path: str) -> bool:
        return path == NUMBER

    def read_text(self, path: str) -> str:
        assert path == NUMBER
        return f"{self.pages}\n"

    def write_text(self, path: str, text: str) -> None:
        assert path == NUMBER
        self.pages = min(int(text), self.room)


@pytest.mark.parametrize(("before", "inside"), [(0, 4), (3, 4), (4, 4), (9, 9)])
def test_there_are_as_many_as_wanted_or_more_and_then_as_before(before: int, inside: int) -> None:
    system = Memory(before, room=9)

    with huge_pages(system, 4):
        assert system.pages == inside

    assert system.pages == before


def test_a_linux_that_finds_too_few_is_told_of_and_has_as_many_as_before() -> None:
    system = Memory(1, room=3)

    with (
        pytest.raises(GuestError, match="there has no 4 huge pages") as told,
        huge_pages(system, 4),
    ):
        pytest.fail("nobody may go on with them")

    assert told.value.seen == f"3 in {NUMBER}"
    assert system.pages == 1
