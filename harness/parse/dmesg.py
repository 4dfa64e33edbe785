"""What a kernel log says of the IOMMU: how it came up, whose DMA it refused.

Sources: Linux ``drivers/iommu/intel/dmar.c`` (``dmar_fault_do_one()``, ``alloc_iommu()``),
``drivers/iommu/intel/irq_remapping.c``, ``drivers/iommu/intel/iommu.c``,
``drivers/iommu/iommu.c``, ``drivers/vfio/pci/``.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from harness.model.pci import Bdf
from harness.parse.kernel_line import KernelLine, read_kernel_line


class FaultKind(enum.Enum):
    """What was refused."""

    DMA_READ = "DMA Read"
    DMA_WRITE = "DMA Write"
    INTERRUPT = "INTR-REMAP"


@dataclass(frozen=True, slots=True)
class DmarFault:
    """One record that VT-d hardware wrote and Linux printed."""

    kind: FaultKind
    source: Bdf
    """Requester; domain 0 where the kernel does not print the segment."""
    address: int | None = None
    """Faulting address, page aligned; None for interrupts."""
    index: int | None = None
    """Interrupt remapping index; None for DMA."""
    reason: int | None = None
    """Fault reason code (VT-d, table "Fault Conditions"); None in a cut two-line record."""
    words: str = ""
    """The kernel's text for the reason."""
    pasid: int | None = None
    time: float | None = None
    """Seconds since boot."""


@dataclass(frozen=True, slots=True)
class DmarUnit:
    """``DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap … ecap …``."""

    name: str
    base: int
    version: tuple[int, int]
    cap: int
    ecap: int


class DomainType(enum.Enum):
    """``iommu: Default domain type: …``."""

    TRANSLATED = "Translated"
    PASSTHROUGH = "Passthrough"


class VfioNote(enum.Enum):
    """Messages of vfio drivers that a check looks for."""

    BROKEN_INTX = "Masking broken INTx support"
    RELAYING_REQUEST = "Relaying device request to user"
    IN_USE = "Device is currently in use"
    DENYLISTED = "exists in vfio-pci device denylist"
    PF_WITH_VFS = "Cannot bind to PF with SR-IOV enabled"
    TOKEN_REQUIRED = "VF token required to access device"
    TOKEN_WRONG = "Incorrect VF token provided for device"
    NO_INTERRUPT_REMAPPING = "No interrupt remapping support"


@dataclass(frozen=True, slots=True)
class VfioMessage:
    """A `VfioNote` about one function."""

    note: VfioNote
    text: str
    function: Bdf | None = None
    time: float | None = None


@dataclass(frozen=True, slots=True)
class IommuBoot:
    """What the log tells of the IOMMU; empty values where it tells nothing."""

    enabled: bool = False
    """``DMAR: IOMMU enabled``: printed for ``intel_iommu=on`` on the command line only."""
    units: tuple[DmarUnit, ...] = ()
    interrupt_mode: str | None = None
    """``x2apic`` or ``xapic``; None: interrupt remapping was not enabled."""
    batching_disallowed: bool = False
    """Linux saw caching mode (VTD-50)."""
    no_address_widths: bool = False
    """CAP.SAGAW is empty (``dma-translation=off``)."""
    domain_type: DomainType | None = None
    strict: bool | None = None
    """TLB invalidation policy: True strict, False lazy, None not said."""
    groups: tuple[tuple[Bdf, int], ...] = ()
    """``Adding to iommu group N``, in the order of the log; a function may come again."""

    def group(self, function: Bdf) -> int | None:
        """Return the group *function* was last added to, or None."""
        return dict(self.groups).get(function)

    def unit(self, name: str = "dmar0") -> DmarUnit:
        """Return the unit called *name*.

        :raise KeyError: the log has no such unit.
        """
        for unit in self.units:
            if unit.name == name:
                return unit
        raise KeyError(f"no IOMMU {name!r} in the log; there are {[u.name for u in self.units]}")


_BDF = r"(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"
# Linux 5.14 on: NO_PASID or PASID in the brackets, 0x before numbers, reason in hex.
# Linux 5.1 to 5.13: "PASID ffffffff" behind the device; up to 5.13 the reason is decimal.
# Linux up to 4.1: no space behind "DMAR:" and the reason on a line of its own.
_FAULT = re.compile(
    r"DMAR: ?\[(?P<kind>DMA Read|DMA Write|INTR-REMAP)"
    r"(?: NO_PASID| PASID 0x(?P<new>[0-9a-f]+))?\]"
    rf" Request device \[(?P<source>{_BDF})\](?: PASID (?P<old>[0-9a-f]+))?"
    r" fault (?P<what>addr|index) (?:0x)?(?P<where>[0-9a-f]+)\s*(?P<rest>.*)",
    re.I,
)
_REASON = re.compile(r"(?:INTR-REMAP:|DMAR: ?)?\s*\[fault reason (0x[0-9a-f]+|\d+)\]\s*(.*)", re.I)
_STATUS = re.compile(r"(?:DMAR: ?)?DRHD: handling fault status reg (?:0x)?([0-9a-f]+)\s*$", re.I)
_SUPPRESSED = re.compile(r"dmar_fault: (\d+) callbacks suppressed")
_UNIT = re.compile(
    r"(?:DMAR: ?)?(?P<name>dmar\d+|IOMMU \d+): reg_base_addr (?P<base>[0-9a-f]+)"
    r" ver (?P<major>\d+):(?P<minor>\d+) cap (?P<cap>[0-9a-f]+) ecap (?P<ecap>[0-9a-f]+)",
    re.I,
)
_MODE = re.compile(r"DMAR-IR: Enabled IRQ remapping in (x2apic|xapic) mode")
_DOMAIN = re.compile(r"iommu: Default domain type: (\w+)")
_POLICY = re.compile(r"(?:iommu: )?DMA domain TLB invalidation policy: (strict|lazy) mode")
_GROUP = re.compile(
    rf"\S+ (?P<new>{_BDF}): Adding to iommu group (?P<number>\d+)"
    rf"|iommu: Adding device (?P<old>{_BDF}) to group (?P<old_number>\d+)"
)
_FUNCTION = re.compile(rf"\S+ ({_BDF}): ")


def _number(reason: str) -> int:
    return int(reason, 16) if reason.lower().startswith("0x") else int(reason)


def find_dmar_fault(line: str) -> DmarFault | None:
    """Return the fault that *line* tells of, or None."""
    message = read_kernel_line(line)
    match = _FAULT.match(message.text)
    if match is None:
        return None
    where = int(match["where"], 16)
    is_address = match["what"].lower() == "addr"
    pasid = match["new"] or match["old"]
    # 5.1 to 5.13 print -1 for "none".
    number = None if pasid is None or pasid.lower() == "ffffffff" else int(pasid, 16)
    reason = _REASON.match(match["rest"])
    return DmarFault(
        next(kind for kind in FaultKind if kind.value.lower() == match["kind"].lower()),
        Bdf.parse(match["source"]),
        address=where if is_address else None,
        index=None if is_address else where,
        reason=_number(reason[1]) if reason else None,
        words=reason[2].strip() if reason else "",
        pasid=number,
        time=message.time,
    )


def dmar_faults(lines: Iterable[str]) -> tuple[DmarFault, ...]:
    """Return all faults, joining the two-line records of old kernels.

    Linux prints at most ten per five seconds: see `suppressed_faults`.
    """
    faults: list[DmarFault] = []
    for line in lines:
        fault = find_dmar_fault(line)
        if fault is not None:
            faults.append(fault)
        elif faults and faults[-1].reason is None:
            reason = _REASON.match(read_kernel_line(line).text)
            if reason is not None:
                faults[-1] = replace(
                    faults[-1], reason=_number(reason[1]), words=reason[2].strip()
                )
    return tuple(faults)


def find_fault_status(line: str) -> int | None:
    """Return the value in ``DMAR: DRHD: handling fault status reg 2``, or None."""
    match = _STATUS.match(read_kernel_line(line).text)
    return int(match[1], 16) if match else None


def suppressed_faults(lines: Iterable[str]) -> int:
    """Return how many fault messages the kernel's rate limit kept back."""
    matches = (_SUPPRESSED.match(read_kernel_line(line).text) for line in lines)
    return sum(int(match[1]) for match in matches if match)


def iommu_boot(lines: Iterable[str]) -> IommuBoot:
    """Gather what the log says of the IOMMU."""
    found = IommuBoot()
    units: list[DmarUnit] = []
    groups: list[tuple[Bdf, int]] = []
    for line in lines:
        text = read_kernel_line(line).text
        if match := _GROUP.match(text):
            number = match["number"] or match["old_number"]
            groups.append((Bdf.parse(match["new"] or match["old"]), int(number)))
        elif match := _UNIT.match(text):
            units.append(
                DmarUnit(
                    match["name"],
                    int(match["base"], 16),
                    (int(match["major"]), int(match["minor"])),
                    int(match["cap"], 16),
                    int(match["ecap"], 16),
                )
            )
        else:
            found = _setting(found, text)
    return replace(found, units=tuple(units), groups=tuple(groups))


def _setting(found: IommuBoot, text: str) -> IommuBoot:
    if text.startswith("DMAR: IOMMU enabled"):
        return replace(found, enabled=True)
    if match := _MODE.match(text):
        return replace(found, interrupt_mode=match[1])
    if "IOMMU batching disallowed due to virtualization" in text:
        return replace(found, batching_disallowed=True)
    if "No supported address widths. Not attempting DMA translation" in text:
        return replace(found, no_address_widths=True)
    if match := _POLICY.match(text):
        return replace(found, strict=match[1] == "strict")
    if match := _DOMAIN.match(text):
        kinds = {kind.value.lower(): kind for kind in DomainType}
        return replace(found, domain_type=kinds.get(match[1].lower()))
    return found


def vfio_messages(lines: Iterable[str]) -> tuple[VfioMessage, ...]:
    """Return the messages of vfio drivers that `VfioNote` lists, in order."""
    return tuple(
        VfioMessage(note, message.text, _function(message), message.time)
        for message in map(read_kernel_line, lines)
        for note in VfioNote
        if note.value in message.text
    )


def _function(message: KernelLine) -> Bdf | None:
    match = _FUNCTION.match(message.text)
    return Bdf.parse(match[1]) if match else None
