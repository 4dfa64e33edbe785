"""Build the kernel image: vmlinuz, its configuration, and the modules that are used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ImageError
from harness.images.built_kernel import BuiltSource, obtain_built_source
from harness.images.cache import Artifact, hash_file
from harness.images.debian import Package, unpack
from harness.images.kernel_source import KernelSource, read_release
from harness.images.manifest import list_tree
from harness.images.modules import ModuleTree
from harness.images.pack import make_erofs
from harness.images.recipe import KernelRecipe, load_recipe
from harness.images.workshop import Workshop
from harness.step import step


@dataclass(frozen=True, slots=True)
class BuiltKernel:
    """A kernel in the store, before the images that are made for it."""

    key: str
    label: str
    """How it was asked for: ``debian:trixie``, ``built:7.3``, or the file's name."""
    release: str
    """As ``uname -r`` says."""
    vmlinuz: Path
    config: Path | None
    modules_erofs: Path | None
    """To be mounted at ``/lib/modules``: its root has ``<release>/``. None: no modules."""
    modules: Path | None
    """The same files as a directory: ``…/lib/modules/<release>``."""

    def module_tree(self) -> ModuleTree | None:
        """Return the modules, None if everything is built in."""
        return ModuleTree(self.modules) if self.modules else None


def obtain_kernel(
    workshop: Workshop, source: KernelSource | None = None, *, name: str = "kernel"
) -> BuiltKernel:
    """Return the kernel *source*, by default the recipe's own Debian suite.

    :param name: of the recipe and of what is made: ``kernel``, ``ap-kernel``.
    :raise ImageError: it cannot be fetched, or lacks something.
    """
    recipe = load_recipe(KernelRecipe, name)
    source = source or KernelSource(suite=recipe.debian.suite)
    if source.series:
        return _built(workshop, obtain_built_source(workshop, source.series), recipe.modules)
    wanted = None
    inputs = {"modules": " ".join(recipe.modules)}
    if source.bzimage is None:
        wanted = recipe.debian.model_copy(update={"suite": source.suite})
        label = f"debian:{source.suite}"
    else:
        label = source.bzimage.name
        inputs["bzimage"] = hash_file(source.bzimage)
        if source.modules is not None:
            inputs["modules directory"] = _fingerprint(source.modules)

    def build(into: Path, packages: Sequence[Package]) -> None:
        if source.bzimage is None:
            _from_packages(packages, recipe.modules, into)
            return
        shutil.copyfile(source.bzimage, into / "vmlinuz")
        (into / "release").write_text(read_release(source.bzimage) + "\n")
        if source.modules is not None:
            _pack_modules(source.modules, recipe.modules, into)

    return _found(workshop.obtain(name, inputs, build, wanted), label)


def _built(workshop: Workshop, source: BuiltSource, modules: Sequence[str]) -> BuiltKernel:
    names = tuple(dict.fromkeys((*modules, *source.recipe.modules)))

    def build(into: Path, _: Sequence[Package]) -> None:
        for name in ("vmlinuz", "release", "config"):
            shutil.copyfile(source.artifact.dir / name, into / name)
        _pack_modules(source.modules, names, into)

    inputs = {"built": source.artifact.key, "modules": " ".join(names)}
    return _found(workshop.obtain("kernel", inputs, build), f"built:{source.series}")


def _found(artifact: Artifact, label: str) -> BuiltKernel:
    release = (artifact.dir / "release").read_text().strip()
    modules = artifact.dir / "root/lib/modules" / release
    return BuiltKernel(
        artifact.key,
        label,
        release,
        artifact.dir / "vmlinuz",
        _if_there(artifact.dir / "config"),
        _if_there(artifact.dir / "modules.erofs"),
        _if_there(modules),
    )


def _from_packages(packages: Sequence[Package], names: Sequence[str], into: Path) -> None:
    tree = into / "unpacked"
    unpack(packages, tree)
    kernels = sorted((tree / "boot").glob("vmlinuz-*")) + sorted(
        tree.glob("usr/lib/modules/*/vmlinuz")
    )
    if not kernels:
        raise ImageError(
            "the kernel packages have no kernel",
            seen=", ".join(f"{one.name} {one.version}" for one in packages),
        )
    release = read_release(kernels[0])
    shutil.copyfile(kernels[0], into / "vmlinuz")
    (into / "release").write_text(release + "\n")
    for config in (tree / f"boot/config-{release}", tree / f"usr/lib/modules/{release}/config"):
        if config.is_file():
            shutil.copyfile(config, into / "config")
    _pack_modules(tree / "usr/lib/modules" / release, names, into)
    shutil.rmtree(tree)


def _pack_modules(modules: Path, names: Sequence[str], into: Path) -> None:
    tree = ModuleTree(modules)
    with step("take the modules of %s that are used", tree.release):
        selection = tree.select(names)
        tree.copy(selection, into / "root")
    make_erofs(into / "root/lib/modules", into / "modules.erofs")
    record = {
        "modules": selection.modules,
        "built in": selection.builtin,
        "absent": selection.absent,
    }
    (into / "selection.json").write_text(json.dumps(record, indent=1) + "\n")


def _fingerprint(root: Path) -> str:
    """Return what changes when a module directory does; hashing gigabytes would take longer."""
    return " ".join(
        f"{name}:{status.st_size}:{status.st_mtime_ns}" for name, status in list_tree(root).items()
    )


def _if_there(path: Path) -> Path | None:
    return path if path.exists() else None
