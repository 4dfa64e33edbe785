"""Shapes that kill QEMU, each with its page in docs/findings.

They are refusals that QEMU forgot. The oracle says what a sane QEMU says; a run counts them
apart, and a QEMU that refuses them is as right as can be.
"""

from __future__ import annotations

from harness.shapes.shape import Shape

ABSENT_BAR = "docs/findings/vfio-user-msix-in-absent-bar.md"
BEYOND = "docs/findings/sparse-area-beyond-its-region.md"
ODD_SIZE = "docs/findings/vfio-user-bar-size-abort.md"


def known_crash(shape: Shape) -> str:
    """Return the page of the finding that *shape* is a case of, empty if of none."""
    if any(bar.size & (bar.size - 1) for bar in shape.bars):
        return ODD_SIZE
    msix = shape.msix
    # An absent PBA BAR is refused, unless QEMU corrects the offset in it.
    if msix is not None and None in (shape.bar(msix.table_bar), shape.bar(msix.pba_bar)):
        return ABSENT_BAR
    for bar in shape.bars:
        areas = () if isinstance(bar.direct, bool) else bar.direct
        if any(area.end > bar.size for area in areas):
            return BEYOND
    return ""
