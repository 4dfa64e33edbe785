"""The rows of one BAR, written down by hand, and the check of a map against them."""

from harness.lab.assigned import Assigned
from harness.model.memory_map import MemoryMap

Row = tuple[int, int, str, str, bool]
"""First and last offset in the BAR, type, name without the device's, marked."""


def check_layout(assigned: Assigned, bar: int, rows: list[Row], found: MemoryMap) -> None:
    """BAR *bar* has exactly these rows."""
    window = assigned.window(bar)
    seen = [
        (
            row.range.start - window.start,
            row.range.last - window.start,
            row.kind.value,
            row.name.removeprefix(f"{assigned.function.bdf} "),
            row.in_kvm,
        )
        for row in found.memory.covering(window)
    ]
    assert seen == rows, f"{told(seen)}\nexpected\n{told(rows)}"


def told(rows: list[Row]) -> str:
    """Return a line for each row; pytest explains no assertion of this module."""
    return "\n".join(
        f"{first:#x} to {last:#x} {kind} {name}{' KVM' if marked else ''}"
        for first, last, kind, name, marked in rows
    )
