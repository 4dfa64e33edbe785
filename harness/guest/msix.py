"""MSI-X of a function as its own system can reach it: masked, asked, behind the driver's back.

PCIe 6.0, 7.7.2. What is changed here the driver of the function does not know: put it back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from harness.guest.system import System
from harness.model.pci import Bdf, MsixCapability

_ENTRY = 16
_CONTROL_OF_VECTOR = 12
_CONTROL = 2
"""Message Control, from the start of the capability."""
_FUNCTION_MASK = 1 << 14
_WORD = 32


@dataclass(frozen=True, slots=True)
class Msix:
    """The vectors of the function at *bdf* of *system*."""

    system: System
    bdf: Bdf
    capability: MsixCapability

    @contextlib.contextmanager
    def vector_masked(self, vector: int) -> Iterator[None]:
        """Have the mask bit of one vector set while inside."""
        self._mask_vector(vector, 1)
        try:
            yield
        finally:
            self._mask_vector(vector, 0)

    @contextlib.contextmanager
    def function_masked(self) -> Iterator[None]:
        """Have Function Mask set while inside: it masks every vector."""
        self._mask_function(_FUNCTION_MASK)
        try:
            yield
        finally:
            self._mask_function(0)

    def pending(self) -> frozenset[int]:
        """Return the vectors whose pending bit is set."""
        pba = self.capability.pba
        said = self.system.probe(
            "mem", "words", self._bar(self.capability.pba_bar), pba.start, pba.size // 4
        )
        words = [int(word, 16) for word in said["words"].split(",")]
        bits = sum(word << _WORD * n for n, word in enumerate(words))
        return frozenset(n for n in range(bits.bit_length()) if bits >> n & 1)

    def _mask_vector(self, vector: int, value: int) -> None:
        offset = self.capability.table_offset + _ENTRY * vector + _CONTROL_OF_VECTOR
        bar = self._bar(self.capability.table_bar)
        self.system.probe("mem", "write", bar, offset, "--value", value)

    def _mask_function(self, bit: int) -> None:
        where, offset = str(self.bdf), self.capability.offset + _CONTROL
        said = self.system.probe("config", "read", where, offset, "--width", "2")
        value = int(said["last"], 16) & ~_FUNCTION_MASK | bit
        self.system.probe("config", "write", where, offset, "--width", "2", "--value", value)

    def _bar(self, bar: int) -> str:
        return self.system.resource_file(self.bdf, bar)
