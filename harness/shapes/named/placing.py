"""Where base address registers are put when there is no firmware, and the writes that do it.

Memory from `LOW` on in steps of a BAR's size (a page at least, so that a small BAR fills its
page), what does not fit below the chipset's own addresses from `HIGH` on; ports from `PORTS` on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from harness.machine.qtest import config_write
from harness.model.expectation import ROM_BAR
from harness.model.pci import Bar, BarKind

LOW: Final = 0x8000_0000
LOW_END: Final = 0xFEC0_0000
"""First address of the chipset: I/O APIC, HPET, local APICs, flash."""
HIGH: Final = 0x1_0000_0000
PORTS: Final = 0xC000
PORTS_END: Final = 0x1_0000

COMMAND: Final = 0x04
FIRST_BAR: Final = 0x10
ROM: Final = 0x30
_DECODE: Final = 0x07
"""Memory, ports, bus master."""
_PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class Placed:
    """One function: its slot on the root bus, and where each BAR goes (6: the ROM)."""

    slot: int
    bars: tuple[Bar, ...]
    addresses: Mapping[int, int]

    def commands(self, *, decode: bool = True) -> list[str]:
        """Return the qtest commands that write the registers, decoding last."""
        found: list[str] = []
        for bar in self.bars:
            at, address = FIRST_BAR + 4 * bar.index, self.addresses[bar.index]
            found += self.write(at, address & 0xFFFF_FFFF)
            if bar.kind is BarKind.MEM64:
                found += self.write(at + 4, address >> 32)
        if ROM_BAR in self.addresses:
            found += self.write(ROM, self.addresses[ROM_BAR] | 1)
        return found + (self.write(COMMAND, _DECODE, 2) if decode else [])

    def write(self, offset: int, value: int, width: int = 4) -> list[str]:
        """Return the commands that write to its configuration space."""
        return config_write(0, self.slot, 0, offset, value, width)


@dataclass(slots=True)
class Space:
    """What is free."""

    low: int = LOW
    high: int = HIGH
    ports: int = PORTS

    def place(
        self,
        slot: int,
        bars: Sequence[Bar],
        *,
        rom_size: int = 0,
        at: Mapping[int, int] | None = None,
    ) -> Placed:
        """Find room for one function.

        :param rom_size: 0 leaves the ROM off.
        :param at: addresses that are wished for, by BAR; nobody else must get them.
        :raise ValueError: there is no room.
        """
        addresses = dict(at or {})
        # The largest first: so none leaves a gap.
        for bar in sorted(bars, key=lambda bar: -bar.size):
            if bar.index not in addresses:
                addresses[bar.index] = self._take(bar.kind, bar.size)
        if rom_size and ROM_BAR not in addresses:
            addresses[ROM_BAR] = self._take(BarKind.MEM32, rom_size)
        return Placed(slot, tuple(bars), addresses)

    def _take(self, kind: BarKind, size: int) -> int:
        if kind is BarKind.IO:
            self.ports, found = _next(self.ports, size, 4)
            if self.ports > PORTS_END:
                raise ValueError("no ports are left")
            return found
        end, found = _next(self.low, size, _PAGE)
        if end <= LOW_END:
            self.low = end
            return found
        if kind is not BarKind.MEM64:
            raise ValueError("no addresses below 4 GiB are left")
        self.high, found = _next(self.high, size, _PAGE)
        return found


def _next(free: int, size: int, least: int) -> tuple[int, int]:
    """Return what is free then, and where something of *size* goes."""
    step = max(size, least)
    start = -(-free // step) * step
    return start + step, start
