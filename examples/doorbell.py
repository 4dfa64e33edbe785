"""A PCI device to start from: it turns text in the guest's memory into capitals.

A driver writes address and length, rings, and gets an interrupt when it is done. Serve it with
``trapline device serve examples/doorbell.py``; docs/python-devices.md explains every line.
"""

from harness.device.device import Device
from harness.device.registers import register
from harness.device.spec import BarSpec, ExpressSpec, MsixSpec
from harness.model.pci import BarKind, PciId

ADDRESS, LENGTH, DOORBELL = 0x00, 0x08, 0x10  # registers, in BAR 0


class Doorbell(Device):
    """Registers that are trapped, a page that the guest maps, DMA and one interrupt."""

    id = PciId(0x1234, 0xD00B)
    class_code = 0x120000  # processing accelerator
    bars = (
        BarSpec(0, BarKind.MEM32, 0x1000),  # every access is a call of ours
        BarSpec(2, BarKind.MEM64, 0x1000, prefetchable=True, direct=True),  # memory, no calls
    )
    msix = MsixSpec(vectors=1, table_bar=0, table_offset=0x800, pba_bar=0, pba_offset=0xC00)
    express = ExpressSpec(flr=True)

    @register(bar=0, offset=DOORBELL)
    def rung(self) -> int:
        """Reading the doorbell tells how often the work was done."""
        return int.from_bytes(self.memory(2)[:4], "little")

    @rung.write
    def ring(self, value: int) -> None:
        """Ringing starts the work, which is done when the guest goes on."""
        self.later(self.work)

    def work(self) -> None:
        """Read, change, write back; count it where the guest sees it; interrupt."""
        address, length = self.read(0, ADDRESS, 8), self.read(0, LENGTH, 4)
        self.dma_write(address, self.dma_read(address, length).upper())
        self.memory(2)[:4] = (self.rung.read(self) + 1).to_bytes(4, "little")
        self.interrupt(0)

    def reset(self) -> None:
        """Forget address and length; configuration space is reset already."""
        self.region(0).write(ADDRESS, bytes(DOORBELL))
