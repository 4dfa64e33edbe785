"""QEMU built from Debian's source package, as it is or with one patch more.

The build happens once, in a directory of compilers (`build_root`), and is kept with all its
objects: a patch costs the copy, the files that it touches, and the link.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError, ImageError
from harness.images.build_root import BuildRoot, obtain_build_root
from harness.images.cache import Artifact
from harness.images.debian import Package
from harness.images.debian_source import series_of, unpack_source
from harness.images.libraries import LIBRARIES, LOADER
from harness.images.pack import make_erofs
from harness.images.qemu_firmware import obtain_firmware
from harness.images.qemu_pack import PackedQemu, Parts, collect
from harness.images.recipe import PackageSet, QemuRecipe, Recipe, load_recipe
from harness.images.tools import run_tool
from harness.images.workshop import Workshop
from harness.step import step

TOOLS = "qemu-tools"
"""What the store calls the compilers."""
BUILT = "qemu-source"
"""What the store calls the tree with source and objects."""


class SourceRecipe(Recipe):
    """``qemu-source.toml``: how QEMU is built here."""

    package: str
    """Debian's source package."""
    program: str
    configure: tuple[str, ...]
    tools: PackageSet
    """What compiles it; the source is of the same suite."""


@dataclass(frozen=True, slots=True)
class BuiltTree:
    """Source and objects of one build, and the compilers that made it."""

    artifact: Artifact
    tools: BuildRoot
    recipe: SourceRecipe
    version: str
    """Of the source package."""


def obtain_built_tree(workshop: Workshop) -> BuiltTree:
    """Return the build of Debian's source, which the first time takes about 15 minutes.

    :raise ImageError: it cannot be fetched or does not compile.
    """
    recipe = load_recipe(SourceRecipe, "qemu-source")
    source = workshop.obtain_source(recipe.tools.suite, recipe.package)
    tools = obtain_build_root(workshop, recipe.tools, TOOLS)
    version = _version_of(source)

    def build(into: Path, _: Sequence[Package]) -> None:
        unpack_source(source.dir, into / "src")
        for name in series_of(into / "src"):
            _patch(tools, into, name, f"apply Debian's {Path(name).name}")
        (into / "build").mkdir()
        with step("configure QEMU %s", version):
            words = " ".join(f"'{word}'" for word in recipe.configure)
            _shell(tools, into, f"cd build && ../src/configure {words}", "configure QEMU")
        with step("compile QEMU %s (about 10 minutes on two cores, once)", version):
            _compile(tools, into, recipe)

    inputs = {
        "source": source.key,
        "tools": tools.key,
        "configure": " ".join(recipe.configure),
        "program": recipe.program,
    }
    return BuiltTree(workshop.obtain(BUILT, inputs, build), tools, recipe, version)


def obtain_variant(
    workshop: Workshop, patch: str = "", label: str = "", suite: str = ""
) -> PackedQemu:
    """Return QEMU built from Debian's source with *patch* applied, packed for a virtual host.

    :param patch: unified diff against the source as Debian builds it; empty: none.
    :param suite: must be the recipe's, if it is given.
    :raise ConfigError: the recipe builds another suite.
    :raise ImageError: the patch does not apply, or what it makes does not compile.
    """
    packing = load_recipe(QemuRecipe, "qemu")
    ours = load_recipe(SourceRecipe, "qemu-source").tools.suite
    if suite not in ("", ours):
        raise ConfigError(
            f"QEMU {suite!r} is not built from source here", hint=f"source:{ours} is"
        )
    tree = obtain_built_tree(workshop)
    firmware = obtain_firmware(workshop, packing)

    def build(into: Path, _: Sequence[Package]) -> None:
        work = into / "work"
        if patch:
            with step("compile QEMU %s with %s", tree.version, label):
                copy_tree(tree.artifact.dir, work)
                (work / "the.patch").write_text(patch)
                _patch(tree.tools, work, "../the.patch", f"apply the patch of {label}")
                _compile(tree.tools, work, tree.recipe)
        else:
            work.mkdir()
            (work / "build").mkdir()
            shutil.copy2(tree.artifact.dir / "build" / tree.recipe.program, work / "build")
        libraries = tree.tools.root / LIBRARIES
        parts = Parts(
            binary=work / "build" / tree.recipe.program,
            loader=libraries / LOADER,
            library_dirs=(libraries,),
            data_dirs=(firmware,),
            module_dir=None,
            own_libraries=tuple(p for p in [libraries / "libgcc_s.so.1"] if p.exists()),
        )
        collect(parts, packing, into / "tree")
        make_erofs(into / "tree", into / "qemu.erofs")
        shutil.rmtree(work)

    inputs = {
        "tree": tree.artifact.key,
        "patch": patch,
        "firmware": str(firmware.parent.name),
        "recipe": packing.model_dump_json(include={"program", "firmware", "essential"}),
    }
    return PackedQemu(workshop.obtain("qemu", inputs, build), tree.recipe.program)


def copy_tree(tree: Path, into: Path) -> None:
    """Copy a build with all times, writable: what is older than its source is built again."""
    run_tool(["cp", "-a", "--reflink=auto", tree, into], purpose="copy the build of QEMU")
    run_tool(["chmod", "-R", "u+w", into], purpose="copy the build of QEMU")


def _patch(tools: BuildRoot, work: Path, name: str, purpose: str) -> None:
    line = f"cd src && patch -p1 --batch --fuzz=0 --no-backup-if-mismatch -i {name}"
    _shell(tools, work, line, purpose)


def _compile(tools: BuildRoot, work: Path, recipe: SourceRecipe) -> None:
    _shell(tools, work, f"nice -n 10 ninja -C build {recipe.program}", "compile QEMU")


def _shell(tools: BuildRoot, work: Path, line: str, purpose: str) -> None:
    # Compilers complain by way of ninja, which writes to its standard output.
    tools.run(["sh", "-c", f"{{ {line}; }} 1>&2"], work, purpose=purpose)


def _version_of(source: Artifact) -> str:
    found = [path.name for path in source.dir.glob("*.dsc")]
    if len(found) != 1:
        raise ImageError("the source package has no description", evidence=source.dir)
    return found[0].removesuffix(".dsc").partition("_")[2]


__all__ = ["BuiltTree", "SourceRecipe", "obtain_built_tree", "obtain_variant"]
