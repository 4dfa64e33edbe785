"""Devices in Python that the tests of this area put in front of guests.

Every word of a BAR says where it is (`word_at`), so that a guest can tell what it read.
"""

from harness.device.device import Device
from harness.device.spec import BarSpec, ExpressSpec, MsiSpec, MsixSpec
from harness.model.address import AddressRange
from harness.model.pci import BarKind, PciId

PAGE = 0x1000


def word_at(bar: int, offset: int) -> int:
    """Return the 32-bit word at *offset* of BAR *bar* of any device here."""
    return 0xBA00_0000 | bar << 20 | offset


class Marked(Device):
    """A device whose BARs are filled with `word_at`."""

    def __init__(self) -> None:
        super().__init__()
        for bar in self.bars:
            words = (word_at(bar.index, at) for at in range(0, bar.size, 4))
            self.region(bar.index).write(0, b"".join(w.to_bytes(4, "little") for w in words))


class Shades(Marked):
    """Every kind of page there is: mapped, trapped, the MSI-X table's, the PBA's, ports."""

    id = PciId(0x1234, 0x5AD0)
    interrupt_pin = 1
    bars: tuple[BarSpec, ...] = (
        BarSpec(0, BarKind.MEM64, 4 * PAGE,
                direct=(AddressRange(0, PAGE), AddressRange(3 * PAGE, PAGE))),
        BarSpec(2, BarKind.MEM64, 4 * PAGE, direct=True),
        BarSpec(4, BarKind.IO, 0x20),
        BarSpec(5, BarKind.MEM32, 0x800),
    )  # fmt: skip
    msix = MsixSpec(4, table_bar=2, table_offset=PAGE, pba_bar=2, pba_offset=2 * PAGE)


class Closed(Shades):
    """The same, but nothing of it can be mapped."""

    interrupt_pin = 0
    bars = tuple(BarSpec(bar.index, bar.kind, bar.size) for bar in Shades.bars)


class Open(Shades):
    """The same, but everything in memory can be mapped."""

    interrupt_pin = 0
    bars = tuple(
        BarSpec(bar.index, bar.kind, bar.size, direct=bar.bar.is_memory) for bar in Shades.bars
    )


class QatVf(Marked):
    """The shape of a virtual function of Intel's QAT C62x: one MSI vector, no FLR."""

    id = PciId(0x8086, 0x37C9)
    class_code = 0x0B4000
    subsystem = PciId(0x8086, 0x0000)
    bars = (
        BarSpec(0, BarKind.MEM64, 4 * PAGE, direct=True),
        BarSpec(2, BarKind.MEM64, 4 * PAGE, direct=True),
    )
    msi = MsiSpec(1)
    express = ExpressSpec(flr=False)
    resettable = False


class QatPf(Marked):
    """Its physical function, as far as a neighbour matters: on the same bus, without reset."""

    id = PciId(0x8086, 0x37C8)
    class_code = 0x0B4000
    bars = (BarSpec(0, BarKind.MEM64, 4 * PAGE, direct=True),)
    express = ExpressSpec(flr=False)
    resettable = False


class WithFlr(QatVf):
    """The same shape with Function Level Reset."""

    id = PciId(0x1234, 0xF1A0)
    express = ExpressSpec(flr=True)
