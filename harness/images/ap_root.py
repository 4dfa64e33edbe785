"""The initramfs of the AP host: a small s390x system with the modules a test may load."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness.errors import ImageError
from harness.images.ap_modules import ApModules
from harness.images.ap_qemu import LIBRARIES, LOADER
from harness.images.ap_recipe import ApHostRecipe
from harness.images.debian import Package, unpack
from harness.images.kernel import BuiltKernel
from harness.images.libraries import needed_libraries
from harness.images.modules import ModuleTree, canonical
from harness.images.pack import make_cpio
from harness.images.root_files import (
    BUSYBOX,
    copy_own_files,
    hash_own_files,
    make_directories,
    own_files,
    write_etc,
)
from harness.images.workshop import Workshop

LISTS = "usr/share/trapline"
"""Where ``modules-<set>.list`` are: absolute paths, one a line, in the order of insertion."""

OTHER_SETS = "usr/lib/modules-{name}"
"""Where modules of a set are that excludes the one ``modprobe`` knows."""

_APPLET = re.compile(r"\[\[?|[a-z][a-z0-9_.-]*")
_DISK = ("virtio_blk", "erofs")


def obtain_ap_root(
    workshop: Workshop,
    recipe: ApHostRecipe,
    kernel: BuiltKernel,
    modules: ApModules | None,
    programs: Path,
) -> Path:
    """Return the initramfs, not compressed.

    :param modules: those built for a kernel that has no vfio_ap.
    :param programs: the directory with our own programs.
    """
    inputs = {
        "load": " ".join(recipe.load),
        "keep": " ".join(recipe.keep),
        "directories": " ".join(recipe.directories),
        "files": hash_own_files("ap-host"),
        "kernel": kernel.key,
        "modules": modules.key if modules else "the kernel's own",
        "programs": programs.parent.name,
    }

    def build(into: Path, packages: Sequence[Package]) -> None:
        unpacked, root = into / "unpacked", into / "root"
        unpack(packages, unpacked)
        for place in ("bin", "sbin", "lib"):
            (root / "usr" / place).mkdir(parents=True)
            (root / place).symlink_to(f"usr/{place}")
        _keep(unpacked, recipe.keep, root)
        make_directories(root, recipe.directories)
        write_etc(root)
        for path in sorted(programs.iterdir()):
            shutil.copyfile(path, root / "usr/bin" / path.name)
            (root / "usr/bin" / path.name).chmod(0o755)
        _link_applets(root)
        lists = _add_modules(kernel, modules, recipe, root, into / "stage")
        for name, paths in lists.items():
            (root / LISTS / f"modules-{name}.list").write_text("".join(f"{p}\n" for p in paths))
        copy_own_files(own_files("ap-host"), root)
        make_cpio(root, into / "initrd")
        for path in (root, unpacked, into / "stage"):
            shutil.rmtree(path)

    return workshop.obtain("ap-host", inputs, build, recipe.debian).dir / "initrd"


def _keep(unpacked: Path, names: Sequence[str], root: Path) -> None:
    where = unpacked / LIBRARIES
    for name in names:
        source, target = unpacked / name, root / name
        if not source.is_file():
            raise ImageError(f"no package of the AP host has {name}", hint="see ap-host.toml")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        for library in needed_libraries(where / LOADER, [where], source):
            place = root / LIBRARIES / library.name
            if library.name == LOADER:
                place = root / "usr/lib" / LOADER
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(library, place)
            place.chmod(0o755)


def _link_applets(root: Path) -> None:
    for name in applets((root / BUSYBOX).read_bytes()):
        if not any(os.path.lexists(root / place / name) for place in ("usr/bin", "usr/sbin")):
            (root / "usr/bin" / name).symlink_to("busybox")


def applets(busybox: bytes) -> list[str]:
    """Return the names of busybox's applets, read from a program that does not run here.

    They are one run of strings in alphabetical order (``applet_names``, include/applet_tables.h).

    :raise ImageError: there is no such run.
    """
    found: list[str] = []
    start = busybox.find(b"[\0[[\0")
    while start >= 0:
        name = busybox[start : busybox.find(b"\0", start)].decode(errors="replace")
        if not _APPLET.fullmatch(name) or (found and name <= found[-1]):
            break
        found.append(name)
        start += len(name) + 1
    if not {"sh", "mount", "insmod"} <= set(found):
        raise ImageError("the applets of busybox cannot be found in its file")
    return found


def _add_modules(
    kernel: BuiltKernel, built: ApModules | None, recipe: ApHostRecipe, root: Path, stage: Path
) -> Mapping[str, Sequence[str]]:
    """Put modules into *root*; returns the list of each set."""
    tree = kernel.module_tree()
    if tree is None:
        raise ImageError(
            f"kernel {kernel.label} has no modules",
            hint="give the directory of its modules: --kernel BZIMAGE:MODULES_DIR",
        )
    sets = [one.name for one in recipe.sets] if built else ["group"]
    lists: dict[str, list[str]] = {}
    first = built.files(sets[0]) if built else {}
    for number, name in enumerate(sets):
        ours = built.files(name) if built else {}
        whole = _stage(tree, ours, stage / name)
        if number == 0:
            place = whole.copy(whole.select([*_load(recipe, whole), *_DISK]), root)
            usual = {canonical(path.stem): path for path in place.rglob("*.ko")}
            lists["disk"] = _listed((usual[n] for n in whole.select(_DISK).modules), root)
        else:
            # What all sets have in common is there already.
            ours = {one: path for one, path in ours.items() if path not in first.values()}
            own = root / OTHER_SETS.format(name=name)
            own.mkdir(parents=True)
            for path in ours.values():
                shutil.copyfile(path, own / path.name)
        selection = whole.select(_load(recipe, whole))
        if selection.absent:
            raise ImageError(
                f"kernel {kernel.label} cannot be an AP host: {', '.join(selection.absent)} "
                "is neither built in nor a module",
                hint="build it with CONFIG_ZCRYPT, KVM, VFIO, VFIO_AP",
            )
        places = usual | ({one: own / path.name for one, path in ours.items()} if number else {})
        lists[name] = _listed((places[module] for module in selection.modules), root)
    if not built and not tree.select(["iommufd"]).absent:
        # One build of VFIO does both.
        lists["cdev"] = lists["group"]
    return lists


def _listed(modules: Iterable[Path], root: Path) -> list[str]:
    return [f"/{path.relative_to(root)}" for path in modules]


def _load(recipe: ApHostRecipe, tree: ModuleTree) -> list[str]:
    more = [] if tree.select(["iommufd"]).absent else ["iommufd"]
    return [*more, *recipe.load]


def _stage(tree: ModuleTree, ours: Mapping[str, Path], into: Path) -> ModuleTree:
    """Return the modules of a kernel with some of them replaced by ours."""
    place = into / tree.release
    shutil.copytree(tree.root, place, copy_function=shutil.copyfile)
    for name, path in ours.items():
        for old in [p for p in place.rglob("*.ko*") if p.name.split(".ko")[0] == name]:
            old.unlink()
        (place / "extra").mkdir(exist_ok=True)
        shutil.copyfile(path, place / "extra" / f"{name}.ko")
    return ModuleTree(place)
