"""What a kernel log says of DMA that was refused, whatever IOMMU refused it.

Sources: `harness.parse.dmesg` (VT-d); Linux ``drivers/iommu/virtio-iommu.c``
(``viommu_fault_handler()``); ``drivers/iommu/amd/iommu.c`` (``amd_iommu_report_page_fault()``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from harness.model.pci import Bdf
from harness.parse.dmesg import FaultKind, find_dmar_fault, find_fault_status
from harness.parse.kernel_line import KernelLine, read_kernel_line

_VIRTIO = re.compile(
    r"virtio_iommu \S+: (?P<reason>\w+) fault from EP (?P<endpoint>\d+)"
    r"(?: at (?P<address>0x[0-9a-f]+))? \[(?P<what>[RWX]*)\]"
)
_AMD = re.compile(
    r"(?:\S+ (?P<before>[0-9a-f]{4}:\S+): )?AMD-Vi: Event logged \[IO_PAGE_FAULT "
    r"(?:device=(?P<device>\S+) )?domain=0x[0-9a-f]+ address=(?P<address>0x[0-9a-f]+)"
    r" flags=(?P<flags>0x[0-9a-f]+)\]"
)
_AMD_WRITE = 0x20
"""Flag RW of the event (AMD I/O Virtualization, table "IO_PAGE_FAULT Event")."""


@dataclass(frozen=True, slots=True)
class IommuFault:
    """A refused access, as the kernel that owns the IOMMU tells of it."""

    kind: FaultKind | None
    """None where it is not told: by QEMU's virtio-iommu, of what is not mapped at all."""
    source: Bdf
    """Requester; domain 0 where the kernel does not print the segment."""
    address: int | None = None
    """Where it was to; VT-d and AMD-Vi may give the page only. None for interrupts."""
    reason: str = ""
    """VT-d: the code in hex. virtio-iommu: a word. AMD-Vi: the flags in hex."""
    index: int | None = None
    """Interrupt remapping index; None for DMA."""


def iommu_faults(lines: Iterable[str]) -> tuple[IommuFault, ...]:
    """Return all faults that *lines* of a kernel log tell of, in their order."""
    found = (_fault(line) for line in lines)
    return tuple(fault for fault in found if fault is not None)


def lines_of_faults(lines: Iterable[str]) -> tuple[KernelLine, ...]:
    """Return what the kernel said because of faults: its rate limits count these lines."""
    return tuple(
        read_kernel_line(line)
        for line in lines
        if _fault(line) is not None or find_fault_status(line) is not None
    )


def _fault(line: str) -> IommuFault | None:
    if (dmar := find_dmar_fault(line)) is not None:
        reason = "" if dmar.reason is None else hex(dmar.reason)
        return IommuFault(dmar.kind, dmar.source, dmar.address, reason, dmar.index)
    text = read_kernel_line(line).text
    if match := _VIRTIO.match(text):
        endpoint = int(match["endpoint"])
        source = Bdf(endpoint >> 16, endpoint >> 8 & 0xFF, endpoint >> 3 & 0x1F, endpoint & 7)
        address = int(match["address"], 16) if match["address"] else None
        kind = _kind("W" in match["what"]) if match["what"] else None
        return IommuFault(kind, source, address, match["reason"])
    if match := _AMD.match(text):
        source = Bdf.parse(match["device"] or match["before"])
        flags = int(match["flags"], 16)
        where = int(match["address"], 16)
        return IommuFault(_kind(bool(flags & _AMD_WRITE)), source, where, hex(flags))
    return None


def _kind(is_write: bool) -> FaultKind:
    return FaultKind.DMA_WRITE if is_write else FaultKind.DMA_READ
