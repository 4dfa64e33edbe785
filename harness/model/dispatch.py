"""The dispatch tree of a flat view, as ``info mtree -f -d`` shows it.

Only the physical sections are kept. Use them to find subpages, nothing else: the labels of
the first four sections are given by index and wrong in many versions, and the end address
is wrong before QEMU 7.2 (commit f9c307c3f9).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PhysicalSection:
    """One line ``#5 @00000000fe800000..00000000fe800fff (noname)``."""

    index: int
    start: int
    last: int
    """As printed, inclusive; may lie below ``start`` in old versions."""
    name: str | None
    """None where QEMU prints ``(noname)``: a page shared by several regions."""
    labels: tuple[str, ...] = ()
    """Words in brackets: ``ROOT``, ``MRU``, ``iommu`` and the unreliable ones."""
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Dispatch:
    """The dispatch tree of one flat view."""

    sections: tuple[PhysicalSection, ...]

    @property
    def subpages(self) -> tuple[PhysicalSection, ...]:
        """The pages that several regions share (QEMU ``register_subpage()``)."""
        return tuple(section for section in self.sections if section.name is None)
