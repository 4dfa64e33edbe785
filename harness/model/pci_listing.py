"""PCI functions as QEMU lists them (``query-pci``, ``info pci``)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.model.address import AddressRange
from harness.model.pci import Bdf, PciId


@dataclass(frozen=True, slots=True)
class QueryPciBar:
    """A region of a function."""

    index: int
    """0 to 5; 6 is the expansion ROM."""
    is_memory: bool
    """False: I/O ports."""
    address: int | None = None
    """Where it decodes now; None while it does not (not programmed, or decoding off)."""
    size: int | None = None
    """Bytes; None where ``info pci`` says ``(not mapped)``."""
    is_64: bool = False
    prefetchable: bool = False

    @property
    def range(self) -> AddressRange:
        """Where it decodes now.

        :raise ValueError: it does not.
        """
        if self.address is None or self.size is None:
            raise ValueError(f"BAR {self.index} does not decode")
        return AddressRange(self.address, self.size)


@dataclass(frozen=True, slots=True)
class QueryPciBridge:
    """Bus numbers of a bridge, 0 until firmware gave them."""

    primary: int
    secondary: int
    subordinate: int


@dataclass(frozen=True, slots=True)
class QueryPciFunction:
    """One function. Its address holds the bus number firmware gave, 0 before that."""

    bdf: Bdf
    id: PciId
    qdev_id: str = ""
    """Value of ``id=``; empty if there was none."""
    class_code: int | None = None
    """16 bits: class and subclass; None where only the words are known."""
    class_words: str = ""
    subsystem: PciId | None = None
    irq: int | None = None
    pin: int = 0
    """0: none, 1 to 4: A to D."""
    bars: tuple[QueryPciBar, ...] = ()
    bridge: QueryPciBridge | None = None

    def bar(self, index: int) -> QueryPciBar:
        """Return BAR *index*.

        :raise KeyError: the function has no such BAR.
        """
        for bar in self.bars:
            if bar.index == index:
                return bar
        raise KeyError(f"{self.bdf} ({self.qdev_id or self.id}) has no BAR {index}")
