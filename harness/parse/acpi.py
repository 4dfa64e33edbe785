"""The header that all ACPI tables share (ACPI 6.5, 5.2.6)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from harness.errors import ParseError

_HEADER = struct.Struct("<4sIBB6s8sI4sI")
HEADER_SIZE = _HEADER.size
"""36 bytes."""


@dataclass(frozen=True, slots=True)
class AcpiTable:
    """A table whose length and checksum are right."""

    signature: str
    revision: int
    oem: str
    oem_table: str
    data: bytes
    """All of it, header included."""

    @property
    def body(self) -> bytes:
        """What follows the header."""
        return self.data[HEADER_SIZE:]


def parse_acpi_table(data: bytes, *, signature: str = "", where: str = "ACPI table") -> AcpiTable:
    """Check and read the header of *data* (as in ``/sys/firmware/acpi/tables/…``).

    :param signature: four letters it must have; any if empty.
    :raise ParseError: cut off, longer than it says, wrong checksum or signature.
    """
    if len(data) < HEADER_SIZE:
        raise ParseError(
            f"{len(data)} bytes, a header has {HEADER_SIZE}", text=data.hex(), where=where
        )
    name, length, revision, _sum, oem, oem_table, *_creator = _HEADER.unpack_from(data)
    head = data[:HEADER_SIZE].hex()
    seen = name.decode("ascii", "replace")
    if signature and seen != signature:
        raise ParseError(f"signature {seen!r}, not {signature!r}", text=head, where=where)
    if length != len(data):
        raise ParseError(
            f"{seen} says it has {length} bytes, there are {len(data)}", text=head, where=where
        )
    if sum(data) % 256:
        raise ParseError(
            f"{seen}: bytes add up to {sum(data) % 256:#04x}, not 0", text=head, where=where
        )
    return AcpiTable(seen, revision, _text(oem), _text(oem_table), bytes(data))


def _text(field: bytes) -> str:
    return field.decode("ascii", "replace").rstrip("\0 ")
