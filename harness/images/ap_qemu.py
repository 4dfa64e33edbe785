"""The QEMU inside the AP host: an s390x build, carried on a disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.images.debian import Package, unpack
from harness.images.pack import make_erofs
from harness.images.qemu_pack import MOUNT_POINT, Parts, collect, start_of
from harness.images.recipe import QemuRecipe, load_recipe
from harness.images.workshop import Workshop
from harness.model.version import QemuVersion

LOADER = "ld64.so.1"
LIBRARIES = "usr/lib/s390x-linux-gnu"
"""Where Debian has the libraries of s390x, and the dynamic loader."""


@dataclass(frozen=True, slots=True)
class InnerQemu:
    """A QEMU for s390x as a disk, to be mounted at ``/opt/qemu``."""

    key: str
    label: str
    """How it was asked for: ``debian:trixie``."""
    program: str
    version: QemuVersion
    """As its package says: it cannot be asked here."""
    erofs: Path

    @property
    def argv_prefix(self) -> tuple[str, ...]:
        """Return how it is started where the disk is mounted."""
        return start_of(MOUNT_POINT, self.program, LOADER).argv_prefix

    @property
    def env(self) -> Mapping[str, str]:
        """Return the variables it needs there."""
        return start_of(MOUNT_POINT, self.program, LOADER).env


def obtain_inner_qemu(workshop: Workshop, suite: str = "") -> InnerQemu:
    """Return the s390x QEMU of a Debian suite, by default the recipe's."""
    recipe = load_recipe(QemuRecipe, "ap-qemu")
    wanted = recipe.debian.model_copy(update={"suite": suite or recipe.debian.suite})

    def build(into: Path, packages: Sequence[Package]) -> None:
        unpacked = into / "unpacked"
        unpack(packages, unpacked)
        libraries = unpacked / LIBRARIES
        parts = Parts(
            binary=unpacked / "usr/bin" / recipe.program,
            loader=libraries / LOADER,
            library_dirs=(libraries,),
            data_dirs=(unpacked / "usr/share/qemu",),
            module_dir=libraries / "qemu",
            own_libraries=(libraries / "libgcc_s.so.1",),  # opened when a thread is cancelled
        )
        collect(parts, recipe, into / "tree")
        make_erofs(into / "tree", into / "inner-qemu.erofs")
        shutil.rmtree(into / "tree")
        shutil.rmtree(unpacked)

    inputs = {
        "recipe": recipe.model_dump_json(include={"program", "leave_out", "firmware", "essential"})
    }
    artifact = workshop.obtain("ap-qemu", inputs, build, wanted)
    versions = artifact.manifest().packages
    package = next(v for name, v in versions.items() if name.startswith(recipe.program))
    return InnerQemu(
        artifact.key,
        f"debian:{wanted.suite}",
        recipe.program,
        QemuVersion.parse(package.partition(":")[2] or package),
        artifact.dir / "inner-qemu.erofs",
    )
