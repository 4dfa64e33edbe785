"""Bytes of ``/sys/firmware/acpi/tables/DMAR`` to a `DmarTable` (VT-d specification, chapter 8)."""

from __future__ import annotations

import struct

from harness.errors import ParseError
from harness.model.address import AddressRange
from harness.model.vtd.dmar_table import (
    Andd,
    Atsr,
    DeviceScope,
    DmarTable,
    Drhd,
    OtherStructure,
    Rhsa,
    Rmrr,
    Satc,
    Structure,
)
from harness.parse.acpi import HEADER_SIZE, parse_acpi_table

_FIXED = 12
"""Address width, flags and ten reserved bytes before the first structure."""
_HEAD = struct.Struct("<HH")
_DRHD = struct.Struct("<HHBBHQ")
_RMRR = struct.Struct("<HHHHQQ")
_FLAGS = struct.Struct("<HHBBH")
_RHSA = struct.Struct("<HHIQI")
_ANDD = struct.Struct("<HH3xB")


def parse_dmar(data: bytes, *, where: str = "DMAR") -> DmarTable:
    """Read a DMAR table.

    :raise ParseError: header, checksum or the length of a structure or scope is wrong.
    """
    body = parse_acpi_table(data, signature="DMAR", where=where).body
    if len(body) < _FIXED:
        raise ParseError(
            f"{len(body)} bytes behind the header, there must be {_FIXED}",
            text=data.hex(),
            where=where,
        )
    structures = []
    at = _FIXED
    while at < len(body):
        place = f"{where} offset {HEADER_SIZE + at:#x}"
        piece = _cut(body, at, place)
        structures.append(_structure(piece, place))
        at += len(piece)
    return DmarTable(body[0] + 1, body[1], tuple(structures))


def _cut(body: bytes, at: int, where: str) -> bytes:
    rest = body[at:]
    if len(rest) < _HEAD.size:
        raise ParseError(f"{len(rest)} bytes left over", text=rest.hex(), where=where)
    _type, length = _HEAD.unpack_from(rest)
    if length < _HEAD.size or length > len(rest):
        raise ParseError(
            f"structure says it has {length} bytes, {len(rest)} are left",
            text=rest.hex(),
            where=where,
        )
    return rest[:length]


def _structure(piece: bytes, where: str) -> Structure:
    number, _length = _HEAD.unpack_from(piece)
    try:
        if number == 0:
            *_, flags, _size, segment, base = _DRHD.unpack_from(piece)
            return Drhd(segment, base, bool(flags & 1), _scopes(piece[_DRHD.size :], where))
        if number == 1:
            *_, segment, base, last = _RMRR.unpack_from(piece)
            scopes = _scopes(piece[_RMRR.size :], where)
            return Rmrr(segment, AddressRange(base, last - base + 1), scopes)
        if number in (2, 5):
            *_, flags, _reserved, segment = _FLAGS.unpack_from(piece)
            scopes = _scopes(piece[_FLAGS.size :], where)
            return (Atsr if number == 2 else Satc)(segment, bool(flags & 1), scopes)
        if number == 3:
            *_, base, proximity = _RHSA.unpack_from(piece)
            return Rhsa(base, proximity)
        if number == 4:
            name = piece[_ANDD.size :].split(b"\0", 1)[0].decode("ascii", "replace")
            return Andd(_ANDD.unpack_from(piece)[-1], name)
    except (struct.error, ValueError) as error:
        raise ParseError(
            f"structure of type {number} is not well formed: {error}",
            text=piece.hex(),
            where=where,
        ) from error
    return OtherStructure(number, piece)


def _scopes(data: bytes, where: str) -> tuple[DeviceScope, ...]:
    found = []
    rest = data
    while rest:
        length = rest[1] if len(rest) >= 2 else 0
        if length < 6 or length > len(rest) or length % 2:
            raise ParseError(
                f"device scope says it has {length} bytes, {len(rest)} are left",
                text=rest.hex(),
                where=where,
            )
        path = tuple((rest[i], rest[i + 1]) for i in range(6, length, 2))
        found.append(DeviceScope(rest[0], rest[4], rest[5], path))
        rest = rest[length:]
    return tuple(found)
