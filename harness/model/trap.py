"""Which path serves an access of the guest: predicted from rows, measured from counts.

Every path leaves its own trace (QEMU ``system/trace-events``, ``hw/vfio/trace-events``), so a
prediction per address can be held against what was counted while the guest touched it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from harness.model.address import AddressRange
from harness.model.memory_map import Kind


class TrapClass(enum.Enum):
    """Who serves an access."""

    DIRECT = "direct"
    """The hardware: no exit, no trace."""
    RAM_DEVICE = "ram-device"
    """QEMU, through its own mapping (``memory_region_ram_device_read``): a part of a ``ramd``
    row that shares its page with something else. KVM slots and TCG's table are whole pages."""
    SLOW = "slow"
    """QEMU, through the kernel, or by message (``vfio_region_read``)."""
    TABLE = "msix-table"
    """QEMU's emulated MSI-X table (``memory_region_ops_read``, name ``msix-table``)."""
    PBA = "msix-pba"
    """The same for the pending bits."""
    QUIRK = "quirk"
    """A window of a quirk (``vfio_quirk_*``); it may read the device as well."""
    ROM = "rom"
    """QEMU's copy of the expansion ROM (``vfio_rom_read``)."""
    UNTRACED = "untraced"
    """Left the guest without a trace: nobody answers (the rest of a ``base BAR n``), or the
    kernel served it (coalesced MMIO, ioeventfd)."""
    OTHER = "other"
    """A row that is no part of a vfio device."""
    ABSENT = "absent"
    """No row at all."""
    UNCLEAR = "unclear"
    """Counts that fit no class: not all accesses counted, two paths at once, or noise."""

    @property
    def is_trapped(self) -> bool:
        """Say whether each access must be seen by QEMU."""
        return self in _TRAPPED


_TRAPPED: Final = frozenset(
    (
        TrapClass.RAM_DEVICE,
        TrapClass.SLOW,
        TrapClass.TABLE,
        TrapClass.PBA,
        TrapClass.QUIRK,
        TrapClass.ROM,
    )
)


class Row(Protocol):
    """What `Region` and `ExpectedRow` have in common."""

    @property
    def range(self) -> AddressRange:
        """Where it is."""

    @property
    def kind(self) -> Kind:
        """Its type."""

    @property
    def name(self) -> str:
        """Name of its region."""


def predicted_class(rows: Iterable[Row], address: int, page: int = 4096) -> TrapClass:
    """Return who will serve an access at *address*.

    The same for KVM and TCG; only the exits are not there under TCG.

    :param rows: of one address space, from an expectation or from a map.
    :param page: page size of the host under KVM, of the guest under TCG.
    """
    row = next((row for row in rows if address in row.range), None)
    if row is None:
        return TrapClass.ABSENT
    if row.kind.is_direct:
        whole = AddressRange(address - address % page, page)
        if row.range.covers(whole):
            return TrapClass.DIRECT
        return TrapClass.RAM_DEVICE if row.kind is Kind.RAMD else TrapClass.OTHER
    return _class_of_name(row.name)


def _class_of_name(name: str) -> TrapClass:
    if name in ("msix-table", "msix-pba"):
        return TrapClass(name)
    if name.startswith("vfio-") and name.endswith("-quirk"):
        return TrapClass.QUIRK
    if name.startswith("vfio[") and name.endswith("].rom"):
        return TrapClass.ROM
    if " base BAR " in name:
        return TrapClass.UNTRACED
    if name == "VFIO MSIX PBA":  # of vfio-user-pci: asked of the device, as the rest of its BAR
        return TrapClass.SLOW
    return TrapClass.SLOW if " BAR " in name else TrapClass.OTHER


def measured_class(
    trace_counts: Mapping[str, int],
    n: int,
    exits: int | None = None,
    *,
    tolerance: float = 0.05,
) -> TrapClass:
    """Return who served *n* accesses, from what was counted meanwhile.

    :param trace_counts: events by name; those that carry a region name as
        ``memory_region_ops_read:msix-table``. Others are ignored.
    :param n: accesses the guest made, all of one kind at one place.
    :param exits: growth of ``mmio_exits`` (memory) or ``io_exits`` (ports); None under TCG,
        which has none, and where the counter is not to be trusted.
    :param tolerance: accesses of others, as a share of *n*, that count as noise.
    :raise ValueError: *n* is too small to tell noise from accesses.
    """
    slack = int(n * tolerance)
    if n <= 2 * slack or n <= 0:
        raise ValueError(f"{n} accesses with a tolerance of {tolerance} tell nothing")
    counts = dict.fromkeys(_TRAPPED, 0)
    for event, count in trace_counts.items():
        served = _class_of_event(event)
        if served is not None:
            # A quirk leaves its own event and that of its region: one access, two traces.
            joined = served is TrapClass.QUIRK
            counts[served] = max(counts[served], count) if joined else counts[served] + count
    loud = [served for served, count in counts.items() if count > slack]
    if TrapClass.QUIRK in loud:
        loud = [served for served in loud if served is not TrapClass.SLOW]
    exits_full = exits is None or n <= exits <= n + slack
    if not loud:
        if exits is None or exits <= slack:
            return TrapClass.DIRECT
        return TrapClass.UNTRACED if exits_full else TrapClass.UNCLEAR
    complete = len(loud) == 1 and n <= counts[loud[0]] <= n + slack
    return loud[0] if complete and exits_full else TrapClass.UNCLEAR


def _class_of_event(event: str) -> TrapClass | None:
    name, _, region = event.partition(":")
    stem = name.removesuffix("_read").removesuffix("_write")
    if stem == "memory_region_ops":
        served = _class_of_name(region)
        return served if served in (TrapClass.TABLE, TrapClass.PBA, TrapClass.QUIRK) else None
    if stem == "memory_region_ram_device":
        return TrapClass.RAM_DEVICE
    if stem == "vfio_region":
        return TrapClass.SLOW
    if stem == "vfio_rom":
        return TrapClass.ROM
    return TrapClass.QUIRK if name.startswith("vfio_quirk_") else None
