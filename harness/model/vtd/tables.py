"""What VT-d tables say of one function: how its DMA is translated. Pure, over memory that is read.

Intel VT-d specification 4.1: 9.1 root entry, 9.3 context entry, 9.4 scalable-mode context entry,
9.5 PASID directory entry, 9.6 PASID table entry, 11.4.5 root table address register.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from harness.model.pci import Bdf

ROOT_TABLE: Final = 0x20
"""Offset of the root table address register."""

_PAGE: Final = ~0xFFF
_PRESENT: Final = 1
_SCALABLE: Final = 1
"""Translation table mode of the root table address register, bits 11:10; 0 is legacy."""
_WIDTH_TO_LEVELS: Final = 2
"""An address width is written as its levels, less two: 1 is 39 bits by three levels."""


class Stage(enum.Enum):
    """Whose tables the addresses of a function go through."""

    FIRST = "first stage"
    SECOND = "second stage"
    NESTED = "both stages"
    NONE = "pass-through"


@dataclass(frozen=True, slots=True)
class Translation:
    """How a function is translated.

    :param scalable: its entries are those of scalable mode.
    :param levels: of the tables, 3 for 39 bits and 4 for 48; 0 where there are none.
    :param device_tlb: it may ask for translations and keep them (ATS).
    """

    scalable: bool
    stage: Stage
    levels: int
    device_tlb: bool = False

    def __str__(self) -> str:
        mode = "scalable" if self.scalable else "legacy"
        ats = ", device-TLB" if self.device_tlb else ""
        return f"{mode} mode, {self.stage.value}, {self.levels} levels{ats}"


Read = Callable[[int], int]
"""Returns the 64-bit word at a physical address."""


def translation_of(read: Read, root_table: int, function: Bdf) -> Translation | None:
    """Follow the tables to *function*.

    :param root_table: the root table address register.
    :return: None if there is no entry for it: its DMA faults.
    """
    scalable = root_table >> 10 & 3 == _SCALABLE
    devfn = function.device << 3 | function.function
    root = (root_table & _PAGE) + 16 * function.bus
    if not scalable:
        entry = read(root)
        if not entry & _PRESENT:
            return None
        context = (entry & _PAGE) + 16 * devfn
        return _legacy(read(context), read(context + 8))
    entry = read(root + 8 * (devfn >> 7))  # a table for each half of a bus
    if not entry & _PRESENT:
        return None
    return _scalable(read, (entry & _PAGE) + 32 * (devfn & 0x7F))


def _legacy(low: int, high: int) -> Translation | None:
    if not low & _PRESENT:
        return None
    kind = low >> 2 & 3
    if kind == 2:
        return Translation(False, Stage.NONE, 0)
    return Translation(False, Stage.SECOND, (high & 7) + _WIDTH_TO_LEVELS, kind == 1)


def _scalable(read: Read, context: int) -> Translation | None:
    low, pasid = read(context), read(context + 8) & 0xF_FFFF
    if not low & _PRESENT:
        return None
    directory = read((low & _PAGE) + 8 * (pasid >> 6))
    if not directory & _PRESENT:
        return None
    table = (directory & _PAGE) + 64 * (pasid & 0x3F)
    entry = read(table)
    if not entry & _PRESENT:
        return None
    stage = {1: Stage.FIRST, 2: Stage.SECOND, 3: Stage.NESTED, 4: Stage.NONE}[entry >> 6 & 7]
    levels = {
        Stage.FIRST: 4 + (read(table + 16) >> 2 & 3),  # paging mode: 0 is four levels
        Stage.NONE: 0,
    }.get(stage, (entry >> 2 & 7) + _WIDTH_TO_LEVELS)
    return Translation(True, stage, levels, bool(low & 4))
