"""Whether a kernel module fits a kernel it was not built with, told from the files alone.

A module that does not fit is refused by the kernel at best. At worst (another size of ``struct
module`` under the same vermagic) it is loaded and the kernel dies.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.errors import ImageError
from harness.images.elf import Elf
from harness.images.modules import modinfo

_THIS_MODULE = ".gnu.linkonce.this_module"
_NAME_LENGTH = 64 - 8
"""``struct modversion_info`` (include/linux/module.h) of a 64-bit machine: a long, a name."""


@dataclass(frozen=True, slots=True)
class ModuleAbi:
    """What a module takes for granted about its kernel."""

    name: str
    vermagic: str
    """Release and the configuration that counts most: ``6.12.107+deb13-s390x SMP mod_unload``."""
    struct_size: int
    """Bytes of its ``struct module``, which the kernel reads and writes."""
    entry_points: tuple[tuple[str, int], ...]
    """Offsets in it of the pointers to ``init_module`` and ``cleanup_module``."""
    versions: tuple[tuple[str, int], ...]
    """Checksum of each symbol it uses, sorted; empty without CONFIG_MODVERSIONS."""

    @classmethod
    def read(cls, image: bytes, name: str) -> ModuleAbi:
        """Read it from a module that is not compressed.

        :raise ImageError: it is no module.
        """
        elf = Elf(image, name)
        sections = elf.sections()
        this = sections.get(_THIS_MODULE)
        if this is None:
            raise ImageError(f"{name} is no kernel module", seen=f"no section {_THIS_MODULE}")
        wanted = ("init_module", "cleanup_module")
        pointers = {what: at for at, what in elf.relocated(_THIS_MODULE).items() if what in wanted}
        versions = sections.get("__versions")
        found = _parse_versions(versions.data, elf.order) if versions else {}
        if "__version_ext_crcs" in sections and "__version_ext_names" in sections:
            # Linux 6.14, CONFIG_EXTENDED_MODVERSIONS: names of any length.
            crcs = sections["__version_ext_crcs"].data
            names = sections["__version_ext_names"].data.split(b"\0")
            values = struct.iter_unpack(f"{elf.order}I", crcs[: len(crcs) // 4 * 4])
            found |= {n.decode(): crc for n, (crc,) in zip(names, values, strict=False) if n}
        return cls(
            name,
            dict(modinfo(image, name)).get("vermagic", "").strip(),
            len(this.data),
            tuple(sorted(pointers.items())),
            tuple(sorted(found.items())),
        )


def differences(
    built: ModuleAbi, kernel: Sequence[ModuleAbi], replaced: Iterable[str] = ()
) -> list[str]:
    """Return why *built* must not be loaded into the kernel of the modules *kernel*.

    :param kernel: modules that came with the kernel, so are right.
    :param replaced: modules of *kernel* that ours stand in for: what they export is another's.
    """
    if not kernel:
        return [f"{built.name}: the kernel has no module to compare it with"]
    theirs = kernel[0]
    found = []
    if built.vermagic != theirs.vermagic:
        found.append(f"vermagic is {built.vermagic!r}, the kernel's {theirs.vermagic!r}")
    if built.struct_size != theirs.struct_size:
        found.append(
            f"struct module has {built.struct_size} bytes, the kernel's {theirs.struct_size} "
            "(the configuration differs, for example in CONFIG_DEBUG_INFO_BTF_MODULES)"
        )
    ours = dict(built.entry_points)
    for other in kernel:
        for what, offset in other.entry_points:
            if what in ours and ours[what] != offset:
                found.append(f"{what} of struct module is at {ours[what]:#x}, not at {offset:#x}")
                del ours[what]
    apart = frozenset(replaced)
    known = {n: crc for one in kernel if one.name not in apart for n, crc in one.versions}
    mine = dict(built.versions)
    if known and not mine:
        found.append("it has no checksums of symbols, the kernel's modules have")
    for symbol in sorted(known.keys() & mine.keys()):
        if known[symbol] != mine[symbol]:
            found.append(f"{symbol} has checksum {mine[symbol]:#x}, the kernel {known[symbol]:#x}")
    return [f"{built.name}: {why}" for why in found]


def _parse_versions(data: bytes, order: str) -> dict[str, int]:
    rows = struct.iter_unpack(f"{order}Q{_NAME_LENGTH}s", data[: len(data) // 64 * 64])
    return {name.split(b"\0")[0].decode(errors="replace"): crc for crc, name in rows}
