"""A disk with DPDK's testpmd: loader, libraries and the drivers that our guests have use for.

::

    bin/dpdk-testpmd   the program, unchanged
    lib/               its dynamic loader and every library that it or a driver is linked with
    plugins/           the drivers, to be named to it with -d
    version            of Debian's package

Like a packed QEMU (`harness.images.qemu_pack`) it uses nothing of the system below it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ImageError
from harness.images.debian import Package, unpack
from harness.images.libraries import LIBRARIES, LOADER, needed_libraries
from harness.images.pack import make_erofs
from harness.images.recipe import PackageSet, Recipe, load_recipe
from harness.images.workshop import Workshop

MOUNT_POINT = "/opt/dpdk"


class DpdkRecipe(Recipe):
    """``dpdk.toml``."""

    debian: PackageSet
    program: str
    plugins: tuple[str, ...]
    """Glob patterns of the drivers that are packed."""
    plugin_directory: str


@dataclass(frozen=True, slots=True)
class Dpdk:
    """The disk, and how its program is started when it is mounted at `MOUNT_POINT`."""

    erofs: Path
    argv_prefix: tuple[str, ...]
    version: str


def obtain_dpdk(workshop: Workshop) -> Dpdk:
    """Return DPDK as ``dpdk.toml`` says.

    :raise ImageError: it cannot be fetched, or lacks something.
    """
    recipe = load_recipe(DpdkRecipe, "dpdk")
    inputs = {
        "program": recipe.program,
        "plugins": " ".join(recipe.plugins),
        "plugin directory": recipe.plugin_directory,
    }

    def build(into: Path, packages: Sequence[Package]) -> None:
        unpacked, tree = into / "unpacked", into / "tree"
        unpack(packages, unpacked)
        _collect(unpacked, tree, recipe)
        (tree / "version").write_text(_version(packages) + "\n")
        shutil.copyfile(tree / "version", into / "version")
        shutil.rmtree(unpacked)
        make_erofs(tree, into / "dpdk.erofs")

    place = workshop.obtain("dpdk", inputs, build, recipe.debian).dir
    plugins = sorted(path.name for path in (place / "tree/plugins").iterdir())
    return Dpdk(
        place / "dpdk.erofs",
        (
            f"{MOUNT_POINT}/lib/{LOADER}",
            "--library-path",
            f"{MOUNT_POINT}/lib",
            f"{MOUNT_POINT}/bin/{Path(recipe.program).name}",
            *(word for name in plugins for word in ("-d", f"{MOUNT_POINT}/plugins/{name}")),
        ),
        (place / "version").read_text().strip(),
    )


def _collect(unpacked: Path, tree: Path, recipe: DpdkRecipe) -> None:
    for name in ("bin", "lib", "plugins"):
        (tree / name).mkdir(parents=True)
    program = unpacked / recipe.program
    if not program.is_file():
        raise ImageError(f"no package of DPDK has {recipe.program}", hint="see dpdk.toml")
    shutil.copy(program, tree / "bin" / program.name)
    where = [unpacked / LIBRARIES]
    users = [program]
    for pattern in recipe.plugins:
        found = [
            path
            for directory in sorted(unpacked.glob(recipe.plugin_directory))
            for path in sorted(directory.glob(pattern))
            if not path.is_symlink()
        ]
        if not found:
            raise ImageError(f"no package of DPDK has {pattern}", hint="see dpdk.toml")
        for path in found:
            shutil.copyfile(path, tree / "plugins" / path.name)
        users += found
    for user in users:
        for library in needed_libraries(where[0] / LOADER, where, user):
            target = tree / "lib" / library.name
            if not target.exists():
                shutil.copyfile(library.resolve(), target)
                target.chmod(0o755 if library.name == LOADER else 0o644)


def _version(packages: Sequence[Package]) -> str:
    return next(one.version for one in packages if one.name == "dpdk-dev")
