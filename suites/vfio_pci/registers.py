"""Registers of the test devices that may be read without a side effect.

Offsets inside every page of a BAR: the last words of a page are no register in any of these
device models (QEMU ``hw/nvme/ctrl.c``, ``hw/net/e1000_regs.h``, ``hw/net/igb_regs.h``,
``hw/misc/edu.c``); what is no register reads as a constant and changes nothing. The registers
that clear on read (ICR at 0xc0, statistics at 0x4000 of e1000e and igb) are not among them.
"""

from collections.abc import Mapping
from typing import Final

HARMLESS: Final[Mapping[str, Mapping[int, int]]] = {
    "nvme": {0: 0xFF8},
    "e1000e": {0: 0xFF8, 1: 0xFF8, 3: 0xFF8},
    "igb": {0: 0xFF8, 1: 0xFF8, 3: 0xFF8},
    "edu": {0: 0xFF8},
}
"""Device and memory BAR to the offset inside each page."""

PORT_REGISTER: Final[Mapping[str, tuple[int, int]]] = {"e1000e": (2, 0), "igb": (2, 0)}
"""Device to BAR and offset of IOADDR, which reads as it was written."""
