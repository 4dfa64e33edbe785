"""Which QEMU shapes are put into."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from harness.errors import ConfigError
from harness.images.qemu_build import QemuBuild
from harness.images.workshop import Workshop
from harness.shapes.bench import DRIVER

FALLBACK: Final = "debian:trixie-backports"
"""The build that stands in where the one asked for has no ``vfio-user-pci``."""


def build_with_vfio_user(spec: str, workshop: Workshop | None = None) -> QemuBuild:
    """Return the build called *spec*.

    :raise ConfigError: there is no such build, or it has no ``vfio-user-pci``.
    """
    build = QemuBuild.resolve(spec, workshop)
    if not build.features.has_device(DRIVER):
        raise ConfigError(
            f"QEMU {spec} ({build.version}) has no {DRIVER}",
            hint=f"give one from 10.1 on that is built with it, for example {FALLBACK}",
        )
    return build


def first_with_vfio_user(specs: Iterable[str], workshop: Workshop | None = None) -> QemuBuild:
    """Return the first of *specs* that has ``vfio-user-pci``, `FALLBACK` if none has.

    :raise ConfigError: one names no build.
    """
    for spec in specs:
        build = QemuBuild.resolve(spec, workshop)
        if build.features.has_device(DRIVER):
            return build
    return build_with_vfio_user(FALLBACK, workshop)
