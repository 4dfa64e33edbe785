"""An intel-iommu set up over qtest: tables, mappings, invalidations, without a guest.

Legacy mode, 48 bits, one domain, one page table of the last level: IOVAs below 2 MiB (Intel VT-d
specification 4.1: 6.5.2 invalidation queue, 9.1 root entry, 9.3 context entry, 9.8 page tables).
"""

from __future__ import annotations

from typing import Final

from harness.errors import ConfigError
from harness.machine.qtest import Qtest
from harness.model.pci import Bdf
from harness.model.vtd.registers import REGISTERS_BASE
from harness.model.vtd.tables import ROOT_TABLE

_PAGE: Final = 0x1000
_MOST: Final = 512 * _PAGE
_COMMAND, _QUEUE_TAIL, _QUEUE = 0x18, 0x88, 0x90
_TRANSLATE, _SET_ROOT_TABLE, _QUEUE_ON = 1 << 31, 1 << 30, 1 << 26
_DOMAIN: Final = 5
_READ_AND_WRITE: Final = 3
_FOUR_LEVELS: Final = 2


class BareVtd:
    """The unit; its tables take seven pages of memory from *tables* on, which are zero."""

    def __init__(self, qtest: Qtest, tables: int) -> None:
        self._qtest = qtest
        pages = [tables + n * _PAGE for n in range(7)]
        self._root, self._context, *self._levels, self._queue = pages
        self._said = 0
        for table, next_table in zip(self._levels, self._levels[1:], strict=False):
            self._set(table, next_table | _READ_AND_WRITE)

    def attach(self, function: Bdf, *, device_tlb: bool = False) -> None:
        """Translate *function* by the mappings.

        :param device_tlb: it may ask for translations and keep them (ATS).
        """
        self._set(self._root + 16 * function.bus, self._context | 1)
        entry = self._context + 16 * (function.device << 3 | function.function)
        self._set(entry + 8, _DOMAIN << 8 | _FOUR_LEVELS)
        self._set(entry, self._levels[0] | int(device_tlb) << 2 | 1)

    def map(self, iova: int, physical: int, count: int = 1) -> None:
        """Map *count* pages, in memory alone: who knows other mappings of them may keep those."""
        if not 0 <= iova <= _MOST - count * _PAGE or (iova | physical) % _PAGE:
            raise ConfigError(f"no {count} pages below {_MOST:#x}: {iova:#x} to {physical:#x}")
        first = self._levels[-1] + iova // _PAGE * 8
        self._qtest.run(
            [
                f"writeq {first + 8 * n:#x} {physical + n * _PAGE | _READ_AND_WRITE:#x}"
                for n in range(count)
            ]
        )

    def enable(self) -> None:
        """Turn it on, with its invalidation queue."""
        for offset, value in ((ROOT_TABLE, self._root), (_QUEUE, self._queue)):
            self._set(REGISTERS_BASE + offset, value)
        for command in (_SET_ROOT_TABLE, _QUEUE_ON, _QUEUE_ON | _TRANSLATE):
            self._qtest.write(REGISTERS_BASE + _COMMAND, command)

    def invalidate(self, iova: int) -> None:
        """Let the unit forget a page (IOTLB invalidation)."""
        self._say(_DOMAIN << 16 | 3 << 4 | 2, iova)

    def invalidate_device(self, function: Bdf, iova: int) -> None:
        """Let *function* forget a page (device-TLB invalidation)."""
        self._say(function.source_id << 32 | 3, iova)

    def _say(self, low: int, high: int) -> None:
        entry = self._queue + 16 * self._said
        self._set(entry, low)
        self._set(entry + 8, high)
        self._said += 1
        self._qtest.write(REGISTERS_BASE + _QUEUE_TAIL, self._said << 4)

    def _set(self, address: int, value: int) -> None:
        self._qtest.write(address, value, 8)
