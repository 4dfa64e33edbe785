"""The optional build with Arm machines: made when it is named, found when a test wants it."""

from __future__ import annotations

from harness.images.cache import key_of
from harness.images.qemu_build import QemuBuild
from harness.images.workshop import Workshop

RECIPE = "qemu-aarch64"
"""The recipe, and what the build is called on the command line."""


def make_arm_qemu(spec: str, workshop: Workshop) -> QemuBuild:
    """Return the build of *spec* (``debian:SUITE``) with Arm machines, made if it is not there.

    :raise ImageError: it cannot be fetched.
    """
    build = QemuBuild.resolve(spec, workshop, RECIPE)
    workshop.store.remember(key_of(RECIPE, spec), build.identity)
    return build


def find_arm_qemu(spec: str, workshop: Workshop) -> QemuBuild | None:
    """Return the same if it was made before, None if it was not."""
    key = workshop.store.recall(key_of(RECIPE, spec))
    if key is None or workshop.store.find("qemu", key) is None:
        return None
    return make_arm_qemu(spec, workshop)
