"""What virtme-ng is given to boot: our kernel, its modules, and a small Debian root.

The root is virtme-ng's ``--root``: by default it takes the root of the computer that it runs
on, which then must have udev; a computer like a container does not, and every computer would
give other figures.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ImageError
from harness.images.cache import hash_file
from harness.images.debian import Package, unpack
from harness.images.images import KernelImage
from harness.images.kernel_source import KernelSource
from harness.images.modules import ModuleTree
from harness.images.recipe import KernelRecipe, load_recipe
from harness.images.workshop import Workshop

_DIRECTORIES = ("proc", "sys", "dev", "run", "tmp", "root", "var", "mnt", "home", "srv", "opt")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\n",
    "etc/group": "root:x:0:\ntty:x:5:\ndisk:x:6:\nkmem:x:15:\n",
    "etc/fstab": "",
}
_DROP = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/bug")


@dataclass(frozen=True, slots=True)
class Kit:
    """A root with kernel and modules where virtme-ng looks for them."""

    root: Path
    release: str

    @property
    def kernel(self) -> Path:
        """The bzImage."""
        return self.root / "boot" / f"vmlinuz-{self.release}"

    @property
    def busybox(self) -> Path:
        """A static one, for its initramfs."""
        return self.root / "usr/bin/busybox"

    @property
    def virtiofsd(self) -> tuple[Path, ...]:
        """Words that start virtiofsd with the libraries it came with."""
        libraries = self.root / "usr/lib/x86_64-linux-gnu"
        return (
            libraries / "ld-linux-x86-64.so.2", Path("--library-path"), libraries,
            self.root / "usr/libexec/virtiofsd",
        )  # fmt: skip


def obtain_kit(workshop: Workshop, kernel: KernelImage, source: KernelSource) -> Kit:
    """Return the kit for *kernel*, making it when it is not there.

    :raise ImageError: the Debian mirror has another kernel by now.
    """
    peer, own = load_recipe(KernelRecipe, "peer"), load_recipe(KernelRecipe, "kernel")
    names = (*own.modules, *peer.modules)
    wanted = peer.debian
    if source.bzimage is None:
        wanted = wanted.model_copy(
            update={
                "suite": source.suite,
                "packages": (*wanted.packages, *own.debian.packages),
                "assume": (*wanted.assume, *own.debian.assume),
            }
        )
    inputs = {"kernel": hash_file(kernel.vmlinuz), "modules": " ".join(names), "maker": "1"}

    def build(into: Path, packages: Sequence[Package]) -> None:
        root = into / "root"
        unpack(packages, root)
        modules = source.modules
        if source.bzimage is None:
            theirs = root / "boot" / f"vmlinuz-{kernel.release}"
            if not theirs.exists() or hash_file(theirs) != hash_file(kernel.vmlinuz):
                raise ImageError(
                    f"the packages have another kernel than {kernel.release}",
                    seen=", ".join(one.name for one in sorted((root / "boot").glob("vmlinuz*"))),
                    hint="trapline images build kernel --refresh",
                )
            modules = root / "usr/lib/modules" / kernel.release
        _select(modules, names, into / "selected")
        _furnish(root, kernel, into / "selected")
        shutil.rmtree(into / "selected", ignore_errors=True)

    artifact = workshop.obtain("peer", inputs, build, wanted)
    return Kit(artifact.dir / "root", kernel.release)


def _select(modules: Path | None, names: Sequence[str], into: Path) -> None:
    if modules is not None:
        tree = ModuleTree(modules)
        tree.copy(tree.select(names), into)


def _furnish(root: Path, kernel: KernelImage, selected: Path) -> None:
    for unwanted in (*_DROP, "boot", "usr/lib/modules"):
        shutil.rmtree(root / unwanted, ignore_errors=True)
    for name in (*_DIRECTORIES, "boot", "etc", "usr/lib"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, content in _FILES.items():
        (root / name).write_text(content)
    if not (root / "usr/bin/sh").exists():
        (root / "usr/bin/sh").symlink_to("bash")
    shutil.copyfile(kernel.vmlinuz, root / "boot" / f"vmlinuz-{kernel.release}")
    if (selected / "lib/modules").is_dir():
        shutil.move(selected / "lib/modules", root / "usr/lib/modules")
