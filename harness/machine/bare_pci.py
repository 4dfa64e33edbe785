"""PCI functions of a machine without firmware, set up over qtest as firmware would.

All configuration space is reached by ECAM (PCIe 6.0, 7.2.2), so that extended capabilities can
be found on every kind of machine. Nothing here waits: QEMU answers qtest in order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from harness.errors import MachineError
from harness.machine.command import MachineSpec
from harness.machine.machine import Machine
from harness.machine.qtest import Qtest, Width, config_write
from harness.model.pci import Bdf

COMMAND: Final = 0x04
_BARS: Final = 0x10
_BUSES: Final = 0x18
_MEMORY_WINDOW: Final = 0x20
_PREFETCH_WINDOW: Final = 0x24
_FIRST_CAPABILITY: Final = 0x34
_FIRST_EXTENDED: Final = 0x100
MEMORY_AND_MASTER: Final = 0b110
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Board:
    """Where a kind of machine has what is needed here.

    :param ecam: configuration space.
    :param window: free for BARs, below 4 GiB.
    :param ram: where memory begins.
    :param enable: value of the PCIEXBAR of a q35's host bridge (offset 60h); 0: ECAM is on.
    """

    ecam: int
    window: int
    ram: int
    enable: int = 0


Q35: Final = Board(0xB000_0000, 0xE000_0000, 0, enable=0xB000_0001)
ARM_VIRT: Final = Board(0x40_1000_0000, 0x1000_0000, 0x4000_0000)
"""QEMU ``hw/arm/virt.c``: VIRT_HIGH_PCIE_ECAM, VIRT_PCIE_MMIO, VIRT_MEM."""

STREAM: Final = "qtest"
"""Name of the stream that `with_qtest` adds."""


RESTING_FIRMWARE: Final = b"\xf4" * 0x10000
"""A firmware for ``-bios`` of a PC: its processor halts at its first instruction.

So a machine can run, which vhost wants, without doing anything.
"""


def with_qtest(spec: MachineSpec) -> MachineSpec:
    """Return *spec* with a qtest socket; see `connect`."""
    words = ("-qtest", f"chardev:{STREAM}", "-qtest-log", "none")
    return replace(spec, streams=(*spec.streams, STREAM)).saying(*words)


def connect(machine: Machine) -> Qtest:
    """Open the qtest session of a machine that has one."""
    stream = machine.place.connect(machine.sockets.stream(STREAM), timeout=10)
    return Qtest(stream, name=machine.spec.name)


class BarePci:
    """Configuration space of a machine, and room for BARs.

    :param board: its kind; ECAM is switched on if it must be.
    """

    def __init__(self, qtest: Qtest, board: Board) -> None:
        self.qtest = qtest
        self.board = board
        if board.enable:
            qtest.run(config_write(0, 0, 0, 0x60, board.enable))

    def read(self, bdf: Bdf, offset: int, width: Width = 4) -> int:
        """Read configuration space."""
        return self.qtest.read(self._address(bdf, offset), width)

    def write(self, bdf: Bdf, offset: int, value: int, width: Width = 4) -> None:
        """Write configuration space."""
        self.qtest.write(self._address(bdf, offset), value, width)

    def open_port(self, port: Bdf, bus: int = 1) -> None:
        """Let the bridge at *port* lead to *bus*, with two windows of a MiB each."""
        memory, prefetch = self.board.window, self.board.window + _MIB
        self.write(port, _BUSES, bus << 16 | bus << 8)
        self.write(port, _MEMORY_WINDOW, _window(memory))
        self.write(port, _PREFETCH_WINDOW, _window(prefetch) | 0x0001_0001)
        self.write(port, COMMAND, MEMORY_AND_MASTER, 2)

    def place(self, bdf: Bdf, *, memory: int, prefetch: int) -> None:
        """Program one BAR of each window, and let the function decode and be a bus master.

        :param memory: index of a 32-bit BAR.
        :param prefetch: index of a 64-bit BAR.
        """
        self.write(bdf, _BARS + 4 * memory, self.board.window)
        self.write(bdf, _BARS + 4 * prefetch, self.board.window + _MIB)
        self.write(bdf, _BARS + 4 * prefetch + 4, 0)
        self.write(bdf, COMMAND, MEMORY_AND_MASTER, 2)

    def bar(self, bdf: Bdf, index: int) -> int:
        """Return the address in a memory BAR."""
        return self.read(bdf, _BARS + 4 * index) & ~0xF

    def capabilities(self, bdf: Bdf, wanted: int) -> list[int]:
        """Return the offsets of all capabilities with id *wanted*."""
        found, offset = [], self.read(bdf, _FIRST_CAPABILITY, 1) & ~3
        while offset:
            header = self.read(bdf, offset)
            if header & 0xFF == wanted:
                found.append(offset)
            offset = header >> 8 & 0xFC
        return found

    def extended(self, bdf: Bdf, wanted: int) -> int:
        """Return the offset of the extended capability *wanted*.

        :raise MachineError: the function has none.
        """
        offset = _FIRST_EXTENDED
        while offset:
            header = self.read(bdf, offset)
            if header & 0xFFFF == wanted:
                return offset
            offset = header >> 20 & 0xFFC
        raise MachineError(f"{bdf} has no extended capability {wanted:#06x}")

    def _address(self, bdf: Bdf, offset: int) -> int:
        where = bdf.bus << 20 | bdf.device << 15 | bdf.function << 12
        return self.board.ecam + where + offset


def _window(base: int) -> int:
    """Return base and limit of a window of one MiB, as a bridge has them."""
    return (base >> 16) << 16 | (base >> 16) & 0xFFF0
