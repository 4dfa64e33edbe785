"""Which shared libraries a program needs, asked of the dynamic loader that will run it.

A program of another machine is read instead: its loader does not run here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from harness.errors import ImageError
from harness.images.elf import X86_64, Elf
from harness.images.tools import run_tool

LOADER = "ld-linux-x86-64.so.2"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
"""Where Debian has the libraries; the loader too (its link in /lib64 may be absolute)."""

_LINE = re.compile(r"\s*(?:(\S+) => )?(/\S+) \(0x[0-9a-f]+\)")


def needed_libraries(loader: Path, directories: Sequence[Path], program: Path) -> list[Path]:
    """Return the libraries *program* is linked with, and the loader; empty if it is static.

    The loader only lists (``--list``): no code of the program runs.

    :param directories: searched before the system's own.
    :raise ImageError: a library is missing, or it is no program for this machine.
    """
    if not is_dynamic(program):
        return []
    if _beginning(program).machine != X86_64:
        return [loader, *_linked(directories, program)]
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


def _linked(directories: Sequence[Path], program: Path) -> list[Path]:
    """Follow what *program* and its libraries say they are linked with (``DT_NEEDED``)."""
    found: dict[str, Path] = {}
    waiting = [program]
    while waiting:
        user = waiting.pop()
        for name in Elf(user.read_bytes(), str(user)).needed():
            if name in found:
                continue
            path = next((d / name for d in directories if (d / name).is_file()), None)
            if path is None:
                raise ImageError(
                    f"{program} cannot run: libraries are missing", seen=f"{name}, of {user.name}"
                )
            found[name] = path
            waiting.append(path)
    return list(found.values())


def is_dynamic(program: Path) -> bool:
    """Say whether a file is a 64-bit ELF with a dynamic section (ELF-64, "Program Header")."""
    with program.open("rb") as file:
        if len(start := file.read(0x40)) < 0x40 or start[:5] != b"\x7fELF\x02":
            return False
    return _beginning(program).is_dynamic()


def _beginning(program: Path) -> Elf:
    """Return the headers of a program; of a QEMU the rest is 80 MB."""
    with program.open("rb") as file:
        return Elf(file.read(0x10000), str(program))
