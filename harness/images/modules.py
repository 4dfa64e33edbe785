"""Kernel modules: which of them a selection needs, in which order, and their index files."""

from __future__ import annotations

import gzip
import lzma
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ImageError
from harness.images.elf import Elf
from harness.images.tools import run_tool

INDEX_INPUTS = ("modules.builtin", "modules.builtin.modinfo")


@dataclass(frozen=True, slots=True)
class Selection:
    """Modules with all they depend on, in an order in which they can be inserted."""

    modules: tuple[str, ...]
    """Names with underscores."""
    builtin: tuple[str, ...]
    """Asked for, and part of the kernel."""
    absent: tuple[str, ...]
    """Asked for, and neither module nor built in."""


def canonical(name: str) -> str:
    """Return a module's name as the kernel writes it."""
    return name.replace("-", "_")


class ModuleTree:
    """The modules of one kernel.

    :param root: ``…/lib/modules/<release>``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files = {
            canonical(path.name.split(".ko")[0]): path for path in sorted(root.rglob("*.ko*"))
        }
        builtin = root / "modules.builtin"
        lines = builtin.read_text().split() if builtin.is_file() else []
        self._builtin = {canonical(Path(line).name.removesuffix(".ko")) for line in lines}
        self._read: dict[str, bytes] = {}

    @property
    def release(self) -> str:
        """Return the kernel release, ``uname -r``."""
        return self.root.name

    def select(self, names: Sequence[str]) -> Selection:
        """Return *names* and everything they depend on.

        Follows ``depends`` and ``softdep`` of each module (include/linux/module.h).
        """
        order: dict[str, None] = {}
        builtin: list[str] = []
        absent: list[str] = []
        for name in map(canonical, names):
            if name in self._files:
                self._visit(name, order, frozenset())
            else:
                (builtin if name in self._builtin else absent).append(name)
        return Selection(tuple(order), tuple(builtin), tuple(absent))

    def image(self, name: str) -> bytes:
        """Return the ELF file of a module, not compressed.

        :raise ImageError: it is damaged or compressed in a way that is not known.
        """
        if name not in self._read:
            self._read[name] = _decompress(self._files[name])
        return self._read[name]

    def copy(self, selection: Selection, into: Path) -> Path:
        """Write the selected modules, not compressed, and their index files.

        :param into: becomes a root: ``<into>/lib/modules/<release>/…`` is made.
        :return: that directory.
        """
        target = into / "lib/modules" / self.release
        target.mkdir(parents=True)
        order = []
        for name in selection.modules:
            place = self._files[name].relative_to(self.root)
            place = place.with_name(place.name.split(".ko")[0] + ".ko")
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            (target / place).write_bytes(self.image(name))
            order.append(f"{place}\n")
        for index in INDEX_INPUTS:
            if (self.root / index).is_file():
                shutil.copyfile(self.root / index, target / index)
        (target / "modules.order").write_text("".join(order))
        run_tool(["depmod", "-b", into, self.release], purpose="index the kernel modules")
        return target

    def _visit(self, name: str, order: dict[str, None], path: frozenset[str]) -> None:
        if name in order or name in path:
            return
        before, after = _dependencies(self._tags(name))
        for other in self._providers(before):
            self._visit(other, order, path | {name})
        order[name] = None
        for other in self._providers(after):
            self._visit(other, order, path | {name})

    def _providers(self, names: Sequence[str]) -> Iterator[str]:
        """Yield modules for *names*; a soft dependency may name an alias (``crc32c``).

        Modules behind such an alias are called after it (``crc32c_generic``,
        ``crc32c_intel``): without the generic one erofs of Linux 6.12 cannot be inserted.
        """
        for name in names:
            if name in self._files:
                yield name
                continue
            for other in self._files:
                if other.startswith(f"{name}_") and ("alias", name) in self._tags(other):
                    yield other

    def _tags(self, name: str) -> list[tuple[str, str]]:
        return modinfo(self.image(name), str(self._files[name]))


def modinfo(image: bytes, where: str) -> list[tuple[str, str]]:
    """Return the tags of a module: the section ``.modinfo`` of a 64-bit ELF.

    :raise ImageError: it is not such a file.
    """
    try:
        section = Elf(image, where).sections().get(".modinfo")
    except ImageError as error:
        raise ImageError("a kernel module is damaged", seen=error.seen, evidence=where) from error
    if section is None:
        raise ImageError("a kernel module is damaged", seen="no section .modinfo", evidence=where)
    entries = section.data.split(b"\0")
    pairs = (entry.decode(errors="replace").split("=", 1) for entry in entries)
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]


def _dependencies(tags: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    before: list[str] = []
    after: list[str] = []
    for tag, value in tags:
        if tag == "depends":
            before += [canonical(name) for name in value.split(",") if name]
        elif tag == "softdep":
            where = before
            for word in value.split():
                if word in ("pre:", "post:"):
                    where = before if word == "pre:" else after
                else:
                    where.append(canonical(word))
    return before, after


def _decompress(path: Path) -> bytes:
    data = path.read_bytes()
    try:
        match path.suffix:
            case ".ko":
                return data
            case ".xz":
                return lzma.decompress(data)
            case ".gz":
                return gzip.decompress(data)
    except (lzma.LZMAError, OSError, EOFError) as error:
        raise ImageError("a kernel module is damaged", seen=str(error), evidence=path) from error
    if path.suffix == ".zst":
        plain = path.with_suffix("")
        raise ImageError(
            "kernel modules compressed with zstd are not read",
            evidence=path,
            hint=f"decompress them first: zstd -d --rm {plain.parent}/*.zst",
        )
    raise ImageError(f"a kernel module has the unknown suffix {path.suffix}", evidence=path)
