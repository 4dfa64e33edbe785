"""The AP instructions of a host as evidence: a line each, as they are executed."""

from __future__ import annotations

import contextlib
from pathlib import Path

from harness.ap.instruction import Instruction

LARGEST = 64 << 20
"""Bytes; what comes later is only counted."""


class InstructionLog:
    """Writes instructions to a file; for one thread."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="ascii", buffering=1)
        self._size = 0
        self._left_out = 0

    def __call__(self, one: Instruction) -> None:
        """Write one down."""
        line = f"{one}\n"
        self._size += len(line)
        if self._size > LARGEST:
            self._left_out += 1
            return
        with contextlib.suppress(OSError, ValueError):  # a full disk must not stop the host
            self._file.write(line)

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError, ValueError):
            if self._left_out:
                self._file.write(f"({self._left_out} left out)\n")
            self._file.close()
