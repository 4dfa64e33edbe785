"""Build the root file system and the initrd of the virtual host."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from harness.errors import ImageError
from harness.images.cache import hash_file
from harness.images.debian import Package, unpack
from harness.images.kernel import BuiltKernel
from harness.images.modules import ModuleTree
from harness.images.pack import make_cpio, make_erofs, remove_matching
from harness.images.probe import obtain_probe
from harness.images.recipe import HostRecipe, load_recipe
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

INITRD_INIT = "initrd-init"
"""Our file for the host that is not in its root but the ``/init`` of its initrd."""


def obtain_host_root(workshop: Workshop) -> Path:
    """Return ``root.erofs``, to be mounted read-only below a tmpfs; its ``/init`` starts all."""
    recipe = load_recipe(HostRecipe, "host")
    probe = obtain_probe(workshop)
    inputs = {
        "drop": " ".join(recipe.drop),
        "directories": " ".join(recipe.directories),
        "files": hash_own_files("host"),
        "probe": hash_file(probe),
    }

    def build(into: Path, packages: Sequence[Package]) -> None:
        root = into / "root"
        unpack(packages, root)
        remove_matching(root, recipe.drop)
        write_etc(root)
        make_directories(root, recipe.directories)
        link_applets(root, root / BUSYBOX)
        _add_probe(probe, root)
        files = {n: path for n, path in own_files("host").items() if n != INITRD_INIT}
        copy_own_files(files, root)
        make_erofs(root, into / "root.erofs")
        shutil.rmtree(root)

    return workshop.obtain("host", inputs, build, recipe.debian).dir / "root.erofs"


def obtain_host_initrd(workshop: Workshop, kernel: BuiltKernel) -> Path:
    """Return the initrd that mounts the host's root, with the modules of *kernel* it needs.

    ``/modules`` in it lists them, one absolute path a line, in the order of insertion; it is
    empty for a kernel with everything built in.
    """
    recipe = load_recipe(HostRecipe, "host")
    wanted = recipe.debian.model_copy(update={"packages": ("busybox-static",), "alone": ()})
    init = own_files("host").get(INITRD_INIT)
    if init is None:
        raise ImageError(f"the recipes have no host/{INITRD_INIT}")
    inputs = {
        "modules": " ".join(recipe.initrd_modules),
        "init": hash_file(init),
        "kernel": kernel.key,
    }

    def build(into: Path, packages: Sequence[Package]) -> None:
        unpack(packages, into / "unpacked")
        root = into / "root"
        (root / "bin").mkdir(parents=True)
        shutil.copy(into / "unpacked" / BUSYBOX, root / "bin/busybox")
        (root / "bin/sh").symlink_to("busybox")
        make_directories(root, ["proc", "sys", "dev"])
        copy_own_files({"init": init}, root)
        tree = kernel.module_tree()
        (root / "modules").write_text(
            _flat_modules(tree, recipe.initrd_modules, root) if tree else ""
        )
        make_cpio(root, into / "initrd")
        shutil.rmtree(root)
        shutil.rmtree(into / "unpacked")

    return workshop.obtain("host-initrd", inputs, build, wanted).dir / "initrd"


def _flat_modules(tree: ModuleTree, names: Sequence[str], root: Path) -> str:
    selection = tree.select(names)
    if selection.absent:
        raise ImageError(
            f"kernel {tree.release} cannot mount the root of the virtual host",
            seen=f"it has no {', '.join(selection.absent)}, neither built in nor as a module",
            hint="build it with CONFIG_VIRTIO_PCI, VIRTIO_BLK, EROFS_FS and OVERLAY_FS",
        )
    (root / "lib").mkdir()
    for name in selection.modules:
        (root / f"lib/{name}.ko").write_bytes(tree.image(name))
    return "".join(f"/lib/{name}.ko\n" for name in selection.modules)


def _add_probe(probe: Path, root: Path) -> None:
    target = root / "usr/bin" / probe.name
    shutil.copyfile(probe, target)
    target.chmod(0o755)
