"""What we read from ELF files of any machine and byte order: sections, links, relocations."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from harness.errors import ImageError

X86_64 = 62
S390 = 22
"""Values of ``e_machine`` (ELF-64, "ELF Header")."""

_PT_DYNAMIC = 2
_DT_NEEDED = 1


@dataclass(frozen=True, slots=True)
class Section:
    """One section: its name and its bytes."""

    name: str
    data: bytes


class Elf:
    """One 64-bit ELF file.

    :param where: what it is called in errors.
    :raise ImageError: it is no such file, or damaged.
    """

    def __init__(self, image: bytes, where: str) -> None:
        self._image = image
        self._where = where
        if image[:5] != b"\x7fELF\x02" or image[5:6] not in (b"\1", b"\2"):
            raise self._damaged("not a 64-bit ELF file")
        self.order = "<" if image[5] == 1 else ">"
        """`struct`'s sign for the order of its bytes."""
        (self.machine,) = self._unpack("H", 0x12)
        """``e_machine``."""

    def sections(self) -> dict[str, Section]:
        """Return the sections by name; of several with one name the first."""
        (table,) = self._unpack("Q", 0x28)
        size, count, names_at = self._unpack("HHH", 0x3A)
        headers = [self._unpack("II4Q", table + i * size) for i in range(count)]
        if not headers:
            return {}
        if names_at >= count:
            raise self._damaged("no section with the names of sections")
        found: dict[str, Section] = {}
        for header in headers:
            name = self._text(headers[names_at][4] + header[0])
            body = b"" if header[1] == _SHT_NOBITS else self._slice(header[4], header[5])
            found.setdefault(name, Section(name, body))
        return found

    def is_dynamic(self) -> bool:
        """Say whether the dynamic loader has something to do for it."""
        return any(kind == _PT_DYNAMIC for kind, *_ in self._segments())

    def needed(self) -> list[str]:
        """Return the libraries it is linked with (``DT_NEEDED``)."""
        sections = self.sections()
        dynamic, names = sections.get(".dynamic"), sections.get(".dynstr")
        if dynamic is None or names is None:
            return []
        pairs = struct.iter_unpack(f"{self.order}qQ", dynamic.data[: len(dynamic.data) // 16 * 16])
        return [_string(names.data, value) for tag, value in pairs if tag == _DT_NEEDED]

    def relocated(self, section: str) -> dict[int, str]:
        """Return which symbol's address goes to each offset of *section* (``.rela``)."""
        sections = self.sections()
        relocations = sections.get(f".rela{section}")
        symbols, names = sections.get(".symtab"), sections.get(".strtab")
        if relocations is None or symbols is None or names is None:
            return {}
        found = {}
        for offset, info, _ in struct.iter_unpack(f"{self.order}QQq", relocations.data):
            (name_at,) = struct.unpack_from(f"{self.order}I", symbols.data, (info >> 32) * 24)
            found[offset] = _string(names.data, name_at)
        return found

    def _segments(self) -> list[tuple[int, ...]]:
        (table,) = self._unpack("Q", 0x20)
        size, count = self._unpack("HH", 0x36)
        return [self._unpack("II6Q", table + i * size) for i in range(count)]

    def _unpack(self, fields: str, offset: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(f"{self.order}{fields}", self._image, offset)
        except struct.error as error:
            raise self._damaged(str(error)) from error

    def _slice(self, offset: int, size: int) -> bytes:
        if offset + size > len(self._image):
            raise self._damaged("it ends within a section")
        return self._image[offset : offset + size]

    def _text(self, offset: int) -> str:
        if offset >= len(self._image):
            raise self._damaged("a name is beyond its end")
        return _string(self._image, offset)

    def _damaged(self, why: str) -> ImageError:
        return ImageError("an ELF file is damaged", seen=why, evidence=self._where)


_SHT_NOBITS = 8


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.find(b"\0", offset)].decode(errors="replace")
