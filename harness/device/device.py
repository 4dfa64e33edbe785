"""A PCI device in Python: declare what it is, say what its registers do.

A device is a subclass of `Device`. Its class attributes say what it is; `Device.read` and
`Device.write` (or handlers set with `register`) say what it does. It is served with
`harness.device.server.serve`::

    class Adder(Device):
        id = PciId(0x1234, 0xADD0)
        bars = (BarSpec(0, BarKind.MEM32, 0x1000),)

        @register(bar=0, offset=0)
        def total(self) -> int:
            return self.sum

        @total.write
        def add(self, value: int) -> None:
            self.sum += value

Everything runs in the one thread that serves the device. `interrupt`, `dma_read` and
`dma_write` may be used from any thread.
"""

from __future__ import annotations

import mmap
from collections import Counter, deque
from collections.abc import Callable
from typing import ClassVar, Final, Protocol

from harness.device import protocol
from harness.device.access_log import AccessLog
from harness.device.config_space import (
    COMMAND,
    STATUS,
    Capabilities,
    ConfigSpace,
    Identity,
    build,
)
from harness.device.dma import DmaFault, DmaMap
from harness.device.interrupts import Interrupts
from harness.device.region_memory import RegionMemory
from harness.device.registers import Register, registers_of
from harness.device.spec import (
    AerSpec,
    BarSpec,
    ExpressSpec,
    IoEventSpec,
    MsiSpec,
    MsixSpec,
    PowerSpec,
    RawCapability,
    check_bars,
)
from harness.model.pci import PciId

_WIDTHS: Final = (1, 2, 4, 8)
_BUS_MASTER: Final = 0x04
_INTX_DISABLE: Final = 0x04
"""Of the upper byte of COMMAND."""
_INTERRUPT_STATUS: Final = 0x08


class Link(Protocol):
    """The way to the client, as far as a device needs it."""

    def dma_read(self, address: int, count: int) -> bytes:
        """Ask the client for memory."""

    def dma_write(self, address: int, data: bytes) -> None:
        """Give the client memory to store."""


class Device:
    """A PCI device; subclass it. Attributes may also be set before ``super().__init__()``."""

    id: PciId = PciId(0x1234, 0x0000)
    class_code: int = 0xFF0000
    """24 bits: class, subclass, programming interface."""
    revision: int = 0
    subsystem: PciId = PciId(0, 0)
    bars: tuple[BarSpec, ...] = ()
    interrupt_pin: int = 0
    """0: none, 1 to 4: A to D."""
    msi: MsiSpec | None = None
    msix: MsixSpec | None = None
    express: ExpressSpec | None = None
    power: PowerSpec | None = None
    aer: AerSpec | None = None
    capabilities: tuple[RawCapability, ...] = ()
    rom: bytes = b""
    ioevents: tuple[IoEventSpec, ...] = ()
    obeys_bus_master: bool = True
    """Does no DMA while Bus Master Enable of the COMMAND register is clear, as hardware."""
    resettable: bool = True
    """Takes part in the reset of its client (VFIO_DEVICE_FLAGS_RESET)."""

    _registers: ClassVar[dict[tuple[int, int], Register]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._registers = registers_of(cls)

    def __init__(self) -> None:
        check_bars(self.bars)
        self.config: ConfigSpace = build(
            Identity(
                self.id,
                self.class_code,
                self.revision,
                self.subsystem,
                self.interrupt_pin,
                self.rom_size,
            ),
            self.bars,
            Capabilities(
                self.power, self.msi, self.express, self.msix, self.aer, self.capabilities
            ),
        )
        self.log = AccessLog()
        self.resets: Counter[str] = Counter()
        """How often it was reset, by cause: ``message``, ``flr``, ``power``."""
        self.irqs = Interrupts(
            intx=int(self.interrupt_pin > 0),
            msi=self.msi.vectors if self.msi is not None else 0,
            msix=self.msix.vectors if self.msix is not None else 0,
            error=int(self.express is not None),
        )
        self.dma = DmaMap()
        self.link: Link | None = None
        self._by_index = {bar.index: bar for bar in self.bars}
        self._memories: dict[int, RegionMemory] = {}
        self._later: deque[Callable[[], None]] = deque()

    # What a device does: override these, or leave them.

    def read(self, bar: int, offset: int, width: int) -> int:
        """Answer a trapped read of *width* bytes (1, 2, 4, 8), little-endian."""
        handler = self._registers.get((bar, offset))
        if handler is not None:
            return handler.read(self)
        return int.from_bytes(self.region(bar).read(offset, width), "little")

    def write(self, bar: int, offset: int, width: int, value: int) -> None:
        """Take a trapped write of *width* bytes (1, 2, 4, 8), little-endian."""
        handler = self._registers.get((bar, offset))
        if handler is not None:
            handler.store(self, value)
        else:
            self.region(bar).write(offset, value.to_bytes(width, "little"))

    def reset(self) -> None:
        """Go back to the state after power-on; configuration space does so by itself."""

    def connected(self) -> None:
        """A client has come and agreed on a version."""

    def disconnected(self) -> None:
        """The client is gone; its memory and interrupts are too."""

    # What a device can use.

    def memory(self, bar: int) -> mmap.mmap:
        """Return the bytes behind BAR *bar*, shared with a client that maps it."""
        return self.region(bar).mapped

    def interrupt(self, vector: int = 0) -> bool:
        """Send an interrupt by whatever the client enabled: MSI-X, MSI or INTx once.

        :return: False if none is enabled, or it is masked (then it stays pending).
        """
        return self.irqs.fire(vector)

    def line(self, asserted: bool) -> None:
        """Raise or lower the INTx line."""
        self.irqs.set_line(asserted)

    def ask_for_removal(self) -> bool:
        """Ask the client to give the device back; QEMU unplugs it."""
        return self.irqs.fire_type(protocol.REQ)

    def report_error(self) -> bool:
        """Report an uncorrectable error; QEMU stops the machine."""
        return self.irqs.fire_type(protocol.ERR)

    def dma_read(self, address: int, count: int, *, by_message: bool = False) -> bytes:
        """Read the client's memory.

        Where it gave no descriptor, or with *by_message*, this takes a message and its answer.
        QEMU does not answer while it waits for us: use `later` in a handler.

        :raise DmaFault: not mapped for reading, or no bus master.
        """
        return self.dma.read(address, count, self._linked().dma_read, by_message=by_message)

    def dma_write(self, address: int, data: bytes, *, by_message: bool = False) -> None:
        """Write to the client's memory; see `dma_read`.

        :raise DmaFault: not mapped for writing, or no bus master; nothing was written.
        """
        self.dma.write(address, data, self._linked().dma_write, by_message=by_message)

    def later(self, work: Callable[[], None]) -> None:
        """Do *work* after the access that is being handled has been answered."""
        self._later.append(work)

    # What the server uses.

    @property
    def rom_size(self) -> int:
        """Size of the expansion ROM's BAR: 0, or a power of two of at least 2048."""
        return 0 if not self.rom else max(2048, 1 << (len(self.rom) - 1).bit_length())

    def region(self, bar: int) -> RegionMemory:
        """Return the memory of BAR *bar*, made when first asked for.

        :raise KeyError: there is no such BAR.
        """
        memory = self._memories.get(bar)
        if memory is None:
            memory = RegionMemory(f"bar{bar}", self._by_index[bar].size)
            self._memories[bar] = memory
        return memory

    def bar(self, index: int) -> BarSpec | None:
        """Return BAR *index*, None if it has none."""
        return self._by_index.get(index)

    def region_size(self, index: int) -> int:
        """Return the size of region *index* (0 to 8), 0 if it has none."""
        if index == protocol.CONFIG_REGION:
            return len(self.config.data)
        if index == protocol.ROM_REGION:
            return self.rom_size
        bar = self._by_index.get(index)
        return 0 if bar is None else bar.size

    def region_read(self, index: int, offset: int, count: int) -> bytes:
        """Answer a read that is inside region *index*."""
        self.log.add(index, offset, count, "read")
        if index == protocol.CONFIG_REGION:
            return self._with_status(offset, self.config.read(offset, count))
        if index == protocol.ROM_REGION:
            return self.rom[offset : offset + count].ljust(count, b"\xff")
        data = b"".join(
            (self.read(index, at, width) & (1 << 8 * width) - 1).to_bytes(width, "little")
            for at, width in _pieces(offset, count)
        )
        return self._with_pending(index, offset, data)

    def region_write(self, index: int, offset: int, data: bytes) -> None:
        """Take a write that is inside region *index*."""
        self.log.add(index, offset, len(data), "write")
        if index == protocol.CONFIG_REGION:
            for effect in self.config.write(offset, data):
                self.do_reset(effect.value)
            self._follow_command()
        elif index != protocol.ROM_REGION:
            for at, width in _pieces(offset, len(data)):
                value = int.from_bytes(data[at - offset : at - offset + width], "little")
                self.write(index, at, width, value)

    def do_reset(self, cause: str) -> None:
        """Reset it, and count that."""
        self.resets[cause] += 1
        self.config.reset()
        self._follow_command()
        self.reset()

    def do_later(self) -> None:
        """Do what handlers left for later."""
        while self._later:
            self._later.popleft()()

    def let_go(self) -> None:
        """Give back all that a client gave: memory, eventfds."""
        self.link = None
        self._later.clear()
        self.dma.clear()
        self.irqs.clear()

    def close(self) -> None:
        """Give back everything; the memory of its BARs is lost."""
        self.let_go()
        for memory in self._memories.values():
            memory.close()

    def _linked(self) -> Link:
        if self.link is None:
            raise DmaFault("DMA: no client is connected")
        if self.obeys_bus_master and not self.config.data[COMMAND] & _BUS_MASTER:
            raise DmaFault("DMA: bus mastering is off (COMMAND bit 2)")
        return self.link

    def _follow_command(self) -> None:
        self.irqs.intx_disabled = bool(self.config.data[COMMAND + 1] & _INTX_DISABLE)

    def _with_status(self, offset: int, data: bytes) -> bytes:
        """Show Interrupt Status, which is the state of INTx and in no byte we keep."""
        at = STATUS - offset
        if not self.irqs.status or not 0 <= at < len(data):
            return data
        return data[:at] + bytes([data[at] | _INTERRUPT_STATUS]) + data[at + 1 :]

    def _with_pending(self, bar: int, offset: int, data: bytes) -> bytes:
        """Lay the pending bits of MSI-X over what was read."""
        if self.msix is None or bar != self.msix.pba_bar:
            return data
        bits = self.irqs.pending_bits()
        start = max(offset, self.msix.pba_offset)
        end = min(offset + len(data), self.msix.pba_offset + len(bits))
        if start >= end:
            return data
        piece = bits[start - self.msix.pba_offset : end - self.msix.pba_offset]
        return data[: start - offset] + piece + data[end - offset :]


def _pieces(offset: int, count: int) -> list[tuple[int, int]]:
    """Split an access into naturally aligned ones of 1, 2, 4 or 8 bytes, as a bus would."""
    if count in _WIDTHS:
        return [(offset, count)]
    pieces = []
    end = offset + count
    while offset < end:
        width = next(w for w in (8, 4, 2, 1) if offset % w == 0 and offset + w <= end)
        pieces.append((offset, width))
        offset += width
    return pieces


__all__ = ["Device", "DmaFault", "Link"]
