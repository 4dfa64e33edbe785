"""Firmware for QEMU builds that have none of their own: Debian's."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from harness.images.debian import Package, unpack
from harness.images.recipe import QemuRecipe
from harness.images.workshop import Workshop


def obtain_firmware(workshop: Workshop, recipe: QemuRecipe) -> Path:
    """Return a directory with the firmware that *recipe* names."""

    def build(into: Path, packages: Sequence[Package]) -> None:
        unpacked = into / "unpacked"
        unpack(packages, unpacked)
        for directory in (unpacked / "usr/share/qemu", unpacked / "usr/share/seabios"):
            for pattern in recipe.firmware:
                for path in directory.glob(pattern):
                    if path.is_file():
                        shutil.copyfile(path, into / path.name)
        shutil.rmtree(unpacked)

    inputs = {"firmware": " ".join(recipe.firmware)}
    return workshop.obtain("qemu-firmware", inputs, build, recipe.firmware_debian).dir
