"""Which shared libraries a program needs, asked of the dynamic loader that will run it."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path

from harness.errors import ImageError
from harness.images.tools import run_tool

LOADER = "ld-linux-x86-64.so.2"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
"""Where Debian has the libraries; the loader too (its link in /lib64 may be absolute)."""

_PT_DYNAMIC = 2
_LINE = re.compile(r"\s*(?:(\S+) => )?(/\S+) \(0x[0-9a-f]+\)")


def needed_libraries(loader: Path, directories: Sequence[Path], program: Path) -> list[Path]:
    """Return the libraries *program* is linked with, and the loader; empty if it is static.

    The loader only lists (``--list``): no code of the program runs.

    :param directories: searched before the system's own.
    :raise ImageError: a library is missing, or it is no program for this machine.
    """
    if not is_dynamic(program):
        return []
    said = run_tool(
        [loader, "--library-path", ":".join(map(str, directories)), "--list", program],
        purpose=f"find the libraries of {program.name}",
    )
    missing = [line.strip() for line in said.splitlines() if "not found" in line]
    if missing:
        raise ImageError(f"{program} cannot run: libraries are missing", seen="\n".join(missing))
    found = [loader]
    for line in said.splitlines():
        match = _LINE.match(line)
        if match and Path(match[2]).name != loader.name:
            found.append(Path(match[2]))
    return found


def is_dynamic(program: Path) -> bool:
    """Say whether a file is a 64-bit ELF with a dynamic section (ELF-64, "Program Header")."""
    with program.open("rb") as file:
        header = file.read(0x40)
        if len(header) < 0x40 or header[:5] != b"\x7fELF\x02":
            return False
        (table,) = struct.unpack_from("<Q", header, 0x20)
        size, count = struct.unpack_from("<HH", header, 0x36)
        file.seek(table)
        headers = file.read(size * count)
    kinds = [struct.unpack_from("<I", headers, size * i)[0] for i in range(count)]
    return _PT_DYNAMIC in kinds
