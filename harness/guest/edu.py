"""QEMU's ``edu`` device, driven from user space of a system (QEMU docs/specs/edu.rst)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.guest.system import System
from harness.model.pci import Bdf

_MEMORY_AND_MASTER = "0x6"


@dataclass(frozen=True, slots=True)
class Edu:
    """The device at *bdf* of *system*; no driver needed, DMA by its own engine."""

    system: System
    bdf: Bdf

    @property
    def _file(self) -> str:
        return self.system.resource_file(self.bdf, 0)

    def enable(self) -> None:
        """Let it decode memory and be a bus master (COMMAND bits 1 and 2)."""
        self.system.run(
            f"setpci -s {self.bdf} COMMAND={_MEMORY_AND_MASTER} 2>/dev/null || "
            f"probe config write {self.bdf} 4 --width 2 --value {_MEMORY_AND_MASTER}"
        )

    def identity(self) -> int:
        """Return the identification register: 0x010000ed."""
        return int(self.system.probe("edu", "id", self._file)["id"], 0)

    def configure(self, *, interrupts: bool = False, dma: bool = True) -> None:
        """Let it decode memory; choose whether it may interrupt (INTx) and be a bus master."""
        command = 0x2 | (0x4 if dma else 0) | (0 if interrupts else 0x400)
        self.system.probe("config", "write", str(self.bdf), 4, "--width", 2, "--value", command)

    def factorial(self, number: int, *, interrupt: bool = False) -> int:
        """Return *number*! as the device computes it (32 bits).

        :param interrupt: let it set bit 0 of the interrupt status when it is done.
        """
        flags = ["--irq"] if interrupt else []
        said = self.system.probe("edu", "factorial", self._file, str(number), *flags)
        return int(said["factorial"], 0)

    def raised(self, bits: int = 0) -> int:
        """Raise the interrupt causes *bits*; return all that are pending then."""
        return int(self.system.probe("edu", "raise", self._file, bits)["irq_status"], 0)

    def acknowledged(self, bits: int) -> int:
        """Acknowledge the interrupt causes *bits*; return what is pending then."""
        return int(self.system.probe("edu", "ack", self._file, bits)["irq_status"], 0)

    def register(self, offset: int) -> int:
        """Read a 32-bit register."""
        return int(self.system.probe("mem", "read", self._file, offset)["last"], 0)

    def inverted(self, value: int, *, register: int = 0x04) -> int:
        """Write *value* to a register; return what is read from it then (0x04: complement)."""
        self.system.probe("mem", "write", self._file, register, "--value", value)
        return self.register(register)

    def roundtrip(self) -> bool:
        """Say whether a page went to the device by DMA and came back unchanged."""
        return self.system.probe("edu", "roundtrip", self._file, "--mask64")["match"] == "yes"

    def poke(self, address: int, value: int) -> None:
        """Let the device write 8 bytes to *address*, whatever is there."""
        self.system.probe(
            "edu", "poke", self._file, "--address", address, "--value", value, "--mask64"
        )

    def send(self, address: int, count: int) -> None:
        """Let the device write *count* bytes of what it fetched last (`poke`) to *address*."""
        self.system.probe(
            "edu", "dma", self._file, "--from-device", "--address", address, "--length", count
        )
