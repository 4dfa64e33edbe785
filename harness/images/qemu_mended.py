"""QEMU mended: built from Debian's source with a patch that takes a known defect away.

For the lab's own QEMU (``--l0-qemu mended:NAME``), where a defect of its emulation is in the way.
Never the subject: what is judged is judged as it is. ``images/mended/<name>.patch`` begins with
what it mends.
"""

from __future__ import annotations

import re
from pathlib import Path

from harness import paths
from harness.errors import ConfigError
from harness.images.qemu_pack import PackedQemu
from harness.images.qemu_source import obtain_variant
from harness.images.workshop import Workshop

MENDED = "mended:"
"""Begins the name of a mended QEMU where a build is named."""


def mended_dir() -> Path:
    """Return where the patches are."""
    return paths.recipes_dir() / "mended"


def mended_names() -> list[str]:
    """Return the names of all."""
    return sorted(path.stem for path in mended_dir().glob("*.patch"))


def patch_of(name: str) -> str:
    """Return the patch *name*.

    :raise ConfigError: there is none.
    """
    path = mended_dir() / f"{name}.patch"
    if not re.fullmatch(r"[a-z0-9-]+", name) or not path.is_file():
        raise ConfigError(
            f"there is no mended QEMU {name!r}", hint=f"there are: {', '.join(mended_names())}"
        )
    return path.read_text(encoding="utf-8")


def obtain_mended(spec: str, workshop: Workshop) -> PackedQemu:
    """Return the QEMU that ``mended:NAME`` means, built if need be: minutes the first time.

    :raise ConfigError: there is no such patch.
    :raise ImageError: it cannot be built.
    """
    name = spec.removeprefix(MENDED)
    return obtain_variant(workshop, patch_of(name), name)
