"""Where two runs of bytes differ, said in one line.

A plain ``==`` in an assertion makes pytest explain the difference with ``difflib``, whole and
in quadratic time where the environment says ``CI``: 64 KiB of disk take longer than any
deadline. Whoever compares data of a device asks here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Difference:
    """The first byte that differs, and how many do.

    :param offset: of the first byte that differs, in bytes.
    :param seen: the byte there, None behind the end of what was seen.
    :param wanted: the byte that should be there, None where nothing should.
    :param count: bytes that differ, the missing and the superfluous ones included.
    """

    offset: int
    seen: int | None
    wanted: int | None
    count: int

    def __str__(self) -> str:
        def name(byte: int | None) -> str:
            return "nothing" if byte is None else f"{byte:#04x}"

        return (
            f"byte {self.offset:#x} is {name(self.seen)}, not {name(self.wanted)}; "
            f"{self.count} bytes differ"
        )

    __repr__ = __str__


def first_difference(seen: bytes, wanted: bytes) -> Difference | None:
    """Return where *seen* first differs from *wanted*, None where they are equal."""
    if seen == wanted:
        return None
    shared = min(len(seen), len(wanted))
    wrong = [i for i in range(shared) if seen[i] != wanted[i]]
    offset = wrong[0] if wrong else shared
    return Difference(
        offset,
        seen[offset] if offset < len(seen) else None,
        wanted[offset] if offset < len(wanted) else None,
        len(wrong) + max(len(seen), len(wanted)) - shared,
    )
