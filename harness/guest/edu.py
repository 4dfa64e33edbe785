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

    def factorial(self, number: int) -> int:
        """Return *number*! as the device computes it (32 bits)."""
        said = self.system.probe("edu", "factorial", self._file, str(number))
        return int(said["factorial"], 0)

    def roundtrip(self) -> bool:
        """Say whether a page went to the device by DMA and came back unchanged."""
        return self.system.probe("edu", "roundtrip", self._file, "--mask64")["match"] == "yes"

    def poke(self, address: int, value: int) -> None:
        """Let the device write 8 bytes to *address*, whatever is there."""
        self.system.probe(
            "edu", "poke", self._file, "--address", address, "--value", value, "--mask64"
        )
