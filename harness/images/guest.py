"""Build the nested guest: one initramfs, and the disk that carries it into the host."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ImageError
from harness.images.cache import hash_file
from harness.images.debian import Package, unpack
from harness.images.kernel import BuiltKernel
from harness.images.libraries import LIBRARIES, LOADER, needed_libraries
from harness.images.pack import make_cpio, make_erofs
from harness.images.probe import obtain_probe
from harness.images.recipe import GuestRecipe, load_recipe
from harness.images.root_files import (
    BUSYBOX,
    copy_own_files,
    hash_own_files,
    link_applets,
    make_directories,
    own_files,
    write_etc,
)
from harness.images.workshop import Workshop


@dataclass(frozen=True, slots=True)
class BuiltGuest:
    """The files a nested guest is started from."""

    kernel: BuiltKernel
    initrd: Path
    """newc archive, not compressed; holds the whole guest."""
    erofs: Path
    """Disk with ``vmlinuz`` and ``initrd``, for the host to mount at ``/opt/guest``."""


def obtain_guest(workshop: Workshop, kernel: BuiltKernel) -> BuiltGuest:
    """Return the nested guest that runs *kernel*."""
    recipe = load_recipe(GuestRecipe, "guest")
    probe = obtain_probe(workshop)
    inputs = {
        "programs": " ".join(recipe.programs),
        "directories": " ".join(recipe.directories),
        "modules": " ".join(recipe.modules),
        "files": hash_own_files("guest"),
        "probe": hash_file(probe),
        "kernel": kernel.key,
    }

    def build(into: Path, packages: Sequence[Package]) -> None:
        unpacked, root = into / "unpacked", into / "root"
        unpack(packages, unpacked)
        for place in ("bin", "sbin", "lib", "lib64"):
            (root / "usr" / place).mkdir(parents=True)
            (root / place).symlink_to(f"usr/{place}")
        _copy_programs(unpacked, [*recipe.programs], root)
        write_etc(root)
        make_directories(root, recipe.directories)
        link_applets(root, root / BUSYBOX)
        shutil.copyfile(probe, root / "usr/bin" / probe.name)
        (root / "usr/bin" / probe.name).chmod(0o755)
        tree = kernel.module_tree()
        if tree:
            tree.copy(tree.select(recipe.modules), root)
        copy_own_files(own_files("guest"), root)
        make_cpio(root, into / "initrd")
        shutil.rmtree(root)
        shutil.rmtree(unpacked)
        (into / "disk").mkdir()
        os.link(into / "initrd", into / "disk/initrd")
        shutil.copyfile(kernel.vmlinuz, into / "disk/vmlinuz")
        make_erofs(into / "disk", into / "guest.erofs")
        shutil.rmtree(into / "disk")

    artifact = workshop.obtain("guest", inputs, build, recipe.debian)
    return BuiltGuest(kernel, artifact.dir / "initrd", artifact.dir / "guest.erofs")


def _copy_programs(unpacked: Path, names: Sequence[str], root: Path) -> None:
    for name in names:
        if not os.path.lexists(unpacked / name):
            raise ImageError(f"no package of the guest has {name}", hint="see guest.toml")
        _copy(unpacked / name, root / name)
    for library in _libraries(unpacked, names):
        place = root / LIBRARIES / library.name
        if library.name == LOADER:
            place = root / "usr/lib64" / LOADER
        _copy(library.resolve(), place)


def _libraries(unpacked: Path, names: Sequence[str]) -> Iterable[Path]:
    where = [unpacked / LIBRARIES]
    loader = where[0] / LOADER
    found: dict[str, Path] = {}
    for name in names:
        program = unpacked / name
        if not program.is_symlink():
            found |= {path.name: path for path in needed_libraries(loader, where, program)}
    return found.values()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target, follow_symlinks=False)
