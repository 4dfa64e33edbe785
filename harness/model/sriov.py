"""Where the virtual functions of a physical one are (PCIe 6.0, 9.2.1.2). Pure."""

from __future__ import annotations

from harness.model.pci import Bdf


def virtual_functions(physical: Bdf, count: int, *, first: int, stride: int) -> tuple[Bdf, ...]:
    """Return where the first *count* virtual functions of *physical* are.

    :param first: First VF Offset of the SR-IOV capability.
    :param stride: its VF Stride.
    """
    found = []
    for number in range(count):
        routing = physical.source_id + first + number * stride
        found.append(Bdf(physical.domain, routing >> 8, routing >> 3 & 0x1F, routing & 7))
    return tuple(found)
