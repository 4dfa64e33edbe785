"""The memory map of a machine: who answers at which address.

A `MemoryMap` is what ``info mtree -f`` shows: flat views, each shared by one or more
address spaces, each a list of disjoint ascending `Region` rows. The tree form is in
`harness.model.memory_tree`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from harness.model.address import AddressRange


class Kind(enum.Enum):
    """The type word of a row (QEMU ``memory_region_type()``)."""

    RAMD = "ramd"
    ROMD = "romd"
    ROM = "rom"
    RAM = "ram"
    IO = "i/o"
    CONTAINER = "container"
    UNKNOWN = "?"
    """The dialect says nothing of it (QEMU up to 2.8), or says a word we do not know."""

    @property
    def is_direct(self) -> bool:
        """Say whether the guest may reach it without a trap (whole pages only)."""
        return self in (Kind.RAMD, Kind.RAM)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who made a region: ``{dev id=nvme0}``, ``{obj path=/objects/ram}``."""

    sort: str
    """``dev`` or ``obj``."""
    key: str
    """``id``, ``path`` or ``type``."""
    value: str

    def __str__(self) -> str:
        return f"{{{self.sort} {self.key}={self.value}}}"


@dataclass(frozen=True, slots=True)
class Region:
    """One row of a flat view."""

    range: AddressRange
    kind: Kind
    name: str
    offset: int = 0
    """Offset of the row inside the *named* region, not inside the BAR."""
    priority: int = 0
    nonvolatile: bool = False
    owner: Owner | None = None
    parent: Owner | None = None
    orphan: bool = False
    accelerators: tuple[str, ...] = ()
    """Marks behind the row (``KVM``): slots that match it exactly, one per address space."""
    word: str = ""
    """The type word as printed, when ``kind`` is UNKNOWN."""

    @property
    def in_kvm(self) -> bool:
        """Say whether KVM holds a slot of exactly this start and size."""
        return any(mark.lower().startswith("kvm") for mark in self.accelerators)

    def owned_by(self, device: str) -> bool:
        """Say whether the device with id *device* made it."""
        return self.owner is not None and (self.owner.key, self.owner.value) == ("id", device)


@dataclass(frozen=True, slots=True)
class AddressSpace:
    """A name for a view: ``AS "memory", root: system``."""

    name: str
    root: str = ""
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class FlatView:
    """What a set of address spaces renders to."""

    spaces: tuple[AddressSpace, ...]
    root: str | None
    """Canonical root region; None for ``(none)`` and where the dialect has no such line."""
    regions: tuple[Region, ...]

    @property
    def names(self) -> frozenset[str]:
        """Names of the address spaces that share the view."""
        return frozenset(space.name for space in self.spaces)

    def at(self, address: int) -> Region | None:
        """Return the row that answers at *address*, or None."""
        return next((row for row in self.regions if address in row.range), None)

    def covering(self, window: AddressRange) -> tuple[Region, ...]:
        """Return the rows that share a byte with *window*, lowest first, uncut."""
        return tuple(row for row in self.regions if row.range.overlaps(window))

    def owned_by(self, device: str) -> tuple[Region, ...]:
        """Return the rows made by the device with id *device*."""
        return tuple(row for row in self.regions if row.owned_by(device))

    def altered(self, change: Callable[[Region], Region | None]) -> FlatView:
        """Return a synthetic view with *change* applied to each row (None drops it).

        Made for negative controls: a check that passes on the real view must fail here.
        """
        rows = (change(row) for row in self.regions)
        return replace(self, regions=tuple(row for row in rows if row is not None))

    def without(self, word: str) -> FlatView:
        """Return a synthetic view that has lost the rows with *word* in their names."""
        return self.altered(lambda row: None if word in row.name else row)


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """All flat views of one machine at one moment."""

    views: tuple[FlatView, ...]

    def view(self, space: str) -> FlatView:
        """Return the view of the address space called *space*.

        :raise KeyError: there is none; the text lists those that are.
        """
        for view in self.views:
            if space in view.names:
                return view
        known = sorted(name for view in self.views for name in view.names)
        raise KeyError(f"no address space {space!r}; there are {', '.join(known)}")

    @property
    def memory(self) -> FlatView:
        """The view of guest physical memory (``AS "memory"``)."""
        return self.view("memory")

    @property
    def ports(self) -> FlatView:
        """The view of the x86 I/O ports (``AS "I/O"``)."""
        return self.view("I/O")

    def altered(self, change: Callable[[Region], Region | None]) -> MemoryMap:
        """Return a synthetic map with *change* applied to each row of each view."""
        return MemoryMap(tuple(view.altered(change) for view in self.views))

    def without(self, word: str) -> MemoryMap:
        """Return a synthetic map that has lost the rows with *word* in their names."""
        return MemoryMap(tuple(view.without(word) for view in self.views))

    def __iter__(self) -> Iterator[FlatView]:
        return iter(self.views)
