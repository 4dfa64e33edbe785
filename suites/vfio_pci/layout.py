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
    assert seen == rows
