"""The memory tree of a machine: how regions are nested, before they are flattened.

A `MemoryTree` is what ``info mtree`` (without ``-f``) shows. It tells where a BAR begins
and ends (``… base BAR 0``) and what is disabled. It does **not** tell who answers at an
address: for that use the flat form, `harness.model.memory_map`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from harness.model.address import AddressRange
from harness.model.memory_map import Kind, Owner

_BASE_BAR = re.compile(r"(?P<device>.*) base BAR (?P<bar>[0-5])")


@dataclass(frozen=True, slots=True)
class Alias:
    """The part of another region that an alias shows."""

    target: str
    """Name of the other region (names are not unique)."""
    range: AddressRange
    """Offsets inside the target."""


@dataclass(frozen=True, slots=True)
class MemoryNode:
    """One line of the tree and everything below it.

    A region of size 0 prints like one of size 1, so a size of 1 proves nothing. A region
    that runs past the last address has a ``range`` that ends above ``2**64``.
    """

    range: AddressRange
    """Absolute within the printed root, which need not be guest physical."""
    kind: Kind
    name: str
    priority: int = 0
    nonvolatile: bool = False
    alias: Alias | None = None
    disabled: bool = False
    overflow: int = 0
    """Marks ``[DETECTED OVERFLOW!]`` before the line. QEMU 5.1 and later also print the mark
    of a hidden region there, so it may belong to a line that is not shown."""
    owner: Owner | None = None
    parent: Owner | None = None
    orphan: bool = False
    word: str = ""
    """The type word as printed, when ``kind`` is UNKNOWN (``RW``, ``R-`` up to QEMU 2.8)."""
    trailing: tuple[str, ...] = ()
    """Words behind the owner that no known dialect prints."""
    children: tuple[MemoryNode, ...] = ()

    def walk(self) -> Iterator[MemoryNode]:
        """Yield the node and all below it, in the order of the print."""
        pending = [self]
        while pending:
            node = pending.pop()
            yield node
            pending.extend(reversed(node.children))


@dataclass(frozen=True, slots=True)
class TreeBlock:
    """One printed tree: of address spaces that share a root, or of an alias target."""

    spaces: tuple[str, ...]
    """Names of the address spaces; empty for a ``memory-region:`` block or an excerpt."""
    region: str | None
    """Name behind ``memory-region:``, else None."""
    roots: tuple[MemoryNode, ...]

    def walk(self) -> Iterator[MemoryNode]:
        """Yield every node, in the order of the print."""
        for root in self.roots:
            yield from root.walk()


@dataclass(frozen=True, slots=True)
class BarWindow:
    """Where a BAR of an assigned device lies: ``0000:03:00.0 base BAR 0`` (QEMU 2.12 on)."""

    device: str
    """The name QEMU gave the device: host address, mdev UUID, or id."""
    bar: int
    range: AddressRange


@dataclass(frozen=True, slots=True)
class MemoryTree:
    """All trees of one machine at one moment."""

    blocks: tuple[TreeBlock, ...]

    def walk(self) -> Iterator[MemoryNode]:
        """Yield every node of every block."""
        for block in self.blocks:
            yield from block.walk()

    def space(self, name: str) -> TreeBlock:
        """Return the block of the address space called *name*.

        :raise KeyError: there is none; the text lists those that are.
        """
        for block in self.blocks:
            if name in block.spaces:
                return block
        known = sorted({space for block in self.blocks for space in block.spaces})
        raise KeyError(f"no address space {name!r}; there are {', '.join(known)}")

    def bar_windows(self, device: str | None = None) -> tuple[BarWindow, ...]:
        """Return the BARs of assigned devices that are enabled, each once, lowest first.

        :param device: only those whose region name or owner id is this.
        """
        found = set()
        for node in self.walk():
            match = _BASE_BAR.fullmatch(node.name)
            if match is None or node.disabled or node.alias is not None:
                continue
            owned = node.owner is not None and (node.owner.key, node.owner.value) == ("id", device)
            if device is None or owned or match["device"] == device:
                found.add(BarWindow(match["device"], int(match["bar"]), node.range))
        return tuple(sorted(found, key=lambda window: (window.range, window.bar, window.device)))
