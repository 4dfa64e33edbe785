"""Which ranges of a flat view belong to a device, and to which of its BARs.

The flat form does not print BARs. For assigned devices they follow from names (``0000:03:00.0
BAR 3``, ``… mmaps[0]``); better is the tree form, which names ``… base BAR 3``. Emulated
devices name their rows as they like: there, rows less than a page apart make one window.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from harness.model.address import AddressRange
from harness.model.memory_map import FlatView, MemoryMap, Owner, Region
from harness.model.memory_tree import BarWindow
from harness.model.page_class import MSIX_NAMES, QUIRK_SUFFIX

_BAR = re.compile(r"(?:VFIO )?(?P<device>.*) BAR (?P<bar>[0-5])(?P<mapped> mmap.*)?")
_ROM = re.compile(r"vfio\[(?P<device>.*)\]\.rom")
_PLATFORM = re.compile(r"VFIO (?P<device>.*) region [0-9]+(?: mmaps\[[0-9]+\])?")


@dataclass(frozen=True, slots=True)
class DeviceWindow:
    """A range of the device: a BAR, or rows that lie together."""

    range: AddressRange
    bar: int | None = None
    """None if the number cannot be known from the map."""
    port: bool = False
    """In I/O port space, where every access traps."""

    @property
    def label(self) -> str:
        """``BAR 0``, or ``window`` where the number is not known."""
        return "window" if self.bar is None else f"BAR {self.bar}"


def _is_of(owner: Owner, device: str) -> bool:
    if owner.key == "id":
        return owner.value == device
    below = f"/machine/peripheral/{device}/"
    return owner.key == "path" and (owner.value == device or (owner.value + "/").startswith(below))


def named_device(row: Region) -> str | None:
    """Return the assigned device whose name is in the name of *row*, or None."""
    match = next(
        filter(None, (form.fullmatch(row.name) for form in (_BAR, _ROM, _PLATFORM))), None
    )
    return match["device"] if match else None


def device_rows(view: FlatView, device: str) -> tuple[Region, ...]:
    """Return the rows made by *device* or by a part of it, lowest first.

    :param device: its id or QOM path (needs ``-o``), or the name QEMU gave an assigned
        device: host address, mdev UUID, id.
    """
    named = [row for row in view.regions if named_device(row) == device]
    # Whoever made the rows with its name made the ones without too, such as msix-table.
    makers = {row.owner for row in named if row.owner is not None}
    return tuple(
        row
        for row in view.regions
        if named_device(row) == device
        or (row.owner is not None and (row.owner in makers or _is_of(row.owner, device)))
    )


def known_devices(memory_map: MemoryMap) -> tuple[str, ...]:
    """Return what `device_rows` finds by id or by name, sorted."""
    found = set()
    for view in memory_map:
        for row in view.regions:
            if row.owner is not None and (row.owner.sort, row.owner.key) == ("dev", "id"):
                found.add(row.owner.value)
            if (name := named_device(row)) is not None:
                found.add(name)
    return tuple(sorted(found))


def _joined(one: AddressRange | None, other: AddressRange) -> AddressRange:
    if one is None:
        return other
    return AddressRange.of(min(one.start, other.start), max(one.end, other.end))


def _bars_by_name(rows: Iterable[Region]) -> dict[int, AddressRange]:
    """Return the hull of the rows of each BAR.

    The row without ``mmaps`` is a piece of a region that begins where the BAR begins, so its
    offset gives that place (hw/vfio: ``vfio_region_setup()`` with the size of the BAR).
    """
    bars: dict[int, AddressRange] = {}
    for row in rows:
        match = _BAR.fullmatch(row.name)
        if match is None:
            continue
        start = row.range.start - (0 if match["mapped"] else row.offset)
        bar = int(match["bar"])
        bars[bar] = _joined(bars.get(bar), AddressRange.of(max(start, 0), row.range.end))
    return bars


def _is_part(row: Region) -> bool:
    """Say whether *row* always lies inside a BAR (an expansion ROM, for one, does not)."""
    return row.name in MSIX_NAMES or row.name.endswith(QUIRK_SUFFIX)


def _fit(window: AddressRange, row: AddressRange) -> int | None:
    """Say how well *row* fits a BAR known to hold *window*: lowest is best, None not at all.

    A BAR is a power of two, naturally aligned: one that is complete rarely needs the row.
    """
    if window.covers(row):
        return 0
    if row.start > window.end or window.start > row.end:
        return None
    complete = window.size & (window.size - 1) == 0 and window.start % window.size == 0
    return 2 if complete else 1


def _grow(bars: dict[int, AddressRange], rows: list[Region]) -> list[Region]:
    """Add to each BAR the rows that touch it, best fit first; return those that touch none."""
    left = list(rows)
    while left:
        fits = [
            (fit, bar, row)
            for row in left
            for bar, window in bars.items()
            if (fit := _fit(window, row.range)) is not None
        ]
        if not fits:
            break
        _, bar, row = min(fits, key=lambda item: (item[0], item[2].range, item[1]))
        bars[bar] = _joined(bars[bar], row.range)
        left.remove(row)
    return left


def _clusters(rows: Iterable[Region], page: int) -> list[AddressRange]:
    """Join rows that lie less than a page apart."""
    found: list[AddressRange] = []
    for row in rows:
        if found and row.range.start <= found[-1].end + -found[-1].end % page:
            found[-1] = _joined(found[-1], row.range)
        else:
            found.append(row.range)
    return found


def device_windows(
    view: FlatView,
    device: str,
    *,
    page: int,
    port: bool = False,
    bars: Iterable[BarWindow] = (),
) -> tuple[DeviceWindow, ...]:
    """Return the windows of *device* in *view*, lowest first.

    An ``msix-table``, ``msix-pba`` or quirk belongs to the BAR it touches. In a map without
    owners that is all that is known of it; two BARs that touch each other with a table
    between them cannot be told apart then.

    :param page: bytes; rows of an emulated device closer than that are one window.
    :param port: *view* is of I/O ports, where no page joins rows.
    :param bars: where the tree form says that the BARs of the device are.
    """
    rows = device_rows(view, device)
    hulls = _bars_by_name(rows) | {window.bar: window.range for window in bars}
    others = [row for row in rows if _BAR.fullmatch(row.name) is None]
    nearby = [row for row in view.regions if row.owner is None and _is_part(row)]
    parts = {row for row in others if _is_part(row)} | set(nearby)
    left = set(_grow(hulls, sorted(parts, key=lambda row: row.range)))
    windows = [DeviceWindow(window, bar, port) for bar, window in hulls.items()]
    alone = [row for row in others if row in left or row not in parts]
    windows += [
        DeviceWindow(window, None, port) for window in _clusters(alone, 1 if port else page)
    ]
    return tuple(sorted(windows, key=lambda window: window.range))
