"""One self-contained tree for any QEMU build: loader, libraries, firmware and modules along.

::

    bin/qemu-system-x86_64   the binary, unchanged
    lib/                     its dynamic loader and every library it is linked with
    share/qemu/              firmware and option ROMs
    modules/                 QEMU's own loadable modules
    run.json                 how to start it when the tree is mounted at /opt/qemu

It runs on any Linux of the same architecture: nothing of the system below is used.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from harness.errors import ImageError
from harness.images.cache import Artifact
from harness.images.libraries import LOADER, needed_libraries
from harness.images.recipe import QemuRecipe

log = logging.getLogger(__name__)

MOUNT_POINT = Path("/opt/qemu")
"""Where the tree is mounted in a virtual host."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the parts of a build are before they are put into one tree."""

    binary: Path
    loader: Path
    library_dirs: tuple[Path, ...]
    """Searched before the system's own."""
    data_dirs: tuple[Path, ...]
    """Firmware; the first that has a file wins."""
    module_dir: Path | None
    own_libraries: tuple[Path, ...] = ()
    """Libraries that are opened by name at run time."""


@dataclass(frozen=True, slots=True)
class Start:
    """How a packed tree is started."""

    argv_prefix: tuple[str, ...]
    env: dict[str, str]


def start_of(tree: Path, program: str, loader: str = LOADER) -> Start:
    """Return how the tree at *tree* is started."""
    return Start(
        (
            f"{tree}/lib/{loader}",
            "--library-path",
            f"{tree}/lib",
            f"{tree}/bin/{program}",
            "-L",
            f"{tree}/share/qemu",
        ),
        {"QEMU_MODULE_DIR": f"{tree}/modules"},
    )


@dataclass(frozen=True, slots=True)
class PackedQemu:
    """A build as one self-contained tree and as a disk with that tree."""

    artifact: Artifact
    program: str

    @property
    def dir(self) -> Path:
        """Return the artifact's directory: ``qemu.erofs`` and ``tree/``."""
        return self.artifact.dir

    @property
    def erofs(self) -> Path:
        """Return the disk, to be mounted at ``/opt/qemu``."""
        return self.artifact.dir / "qemu.erofs"

    @property
    def tree(self) -> Path:
        """Return the tree for use on this machine."""
        return self.artifact.dir / "tree"

    @property
    def argv_prefix(self) -> tuple[str, ...]:
        """Return how it is started where the disk is mounted at ``/opt/qemu``."""
        return start_of(MOUNT_POINT, self.program).argv_prefix

    @property
    def env(self) -> Mapping[str, str]:
        """Return the variables it needs there."""
        return start_of(MOUNT_POINT, self.program).env


def collect(parts: Parts, recipe: QemuRecipe, into: Path) -> None:
    """Make the tree.

    :raise ImageError: a library or the firmware is missing.
    """
    for name in ("bin", "lib", "share/qemu", "modules"):
        (into / name).mkdir(parents=True)
    program = into / "bin" / recipe.program
    shutil.copyfile(parts.binary, program)
    program.chmod(0o755)
    libraries = needed_libraries(parts.loader, parts.library_dirs, parts.binary)
    for module in modules_of(parts.module_dir, recipe.leave_out):
        try:
            more = needed_libraries(parts.loader, parts.library_dirs, module)
        except ImageError as error:
            log.info("module %s is left out: %s", module.name, error.seen)
            continue
        libraries += more
        shutil.copyfile(module, into / "modules" / module.name)
    foreign = [path for path in libraries if not _belongs(path, parts)]
    if foreign:
        raise ImageError(
            f"{parts.binary.name} would take libraries of this machine",
            seen=", ".join(map(str, foreign)),
            hint="the recipe assumes a package that the build needs, see qemu.toml",
        )
    _copy_libraries([*libraries, *parts.own_libraries], parts.loader, into / "lib")
    _copy_firmware(parts.data_dirs, recipe, into / "share/qemu")
    start = start_of(MOUNT_POINT, recipe.program, parts.loader.name)
    (into / "run.json").write_text(
        json.dumps({"argv_prefix": start.argv_prefix, "env": start.env}, indent=1) + "\n"
    )


def _belongs(library: Path, parts: Parts) -> bool:
    """Say whether a library is of the build: one with its own directories has no others."""
    return not parts.library_dirs or any(d in library.parents for d in parts.library_dirs)


def modules_of(directory: Path | None, leave_out: Sequence[str]) -> list[Path]:
    """Return the QEMU modules in *directory* that no pattern leaves out."""
    if directory is None or not directory.is_dir():
        return []
    return [
        path
        for path in sorted(directory.glob("*.so"))
        if not any(fnmatch(path.name, pattern) for pattern in leave_out)
    ]


def _copy_libraries(libraries: Iterable[Path], loader: Path, into: Path) -> None:
    for path in [loader, *libraries]:
        target = into / path.name
        if not target.exists():
            shutil.copyfile(path, target)
            target.chmod(0o755 if path.name == loader.name else 0o644)


def _copy_firmware(data_dirs: Sequence[Path], recipe: QemuRecipe, into: Path) -> None:
    for directory in data_dirs:
        for path in sorted({p for pattern in recipe.firmware for p in directory.glob(pattern)}):
            if path.is_file() and not (into / path.name).exists():
                shutil.copyfile(path, into / path.name)
    if not (into / recipe.essential).exists():
        raise ImageError(
            f"no firmware: {recipe.essential} is in none of the data directories",
            seen=", ".join(map(str, data_dirs)) or "there are none",
        )
