"""The optional build with Arm machines."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.images import qemu_arm
from harness.images.cache import Store
from harness.images.recipe import QemuRecipe, load_recipe
from harness.images.workshop import Workshop


def test_it_is_made_for_this_computer() -> None:
    recipe = load_recipe(QemuRecipe, qemu_arm.RECIPE)

    assert recipe.debian.architecture == "amd64"
    assert recipe.program == qemu_arm.RECIPE.replace("qemu-", "qemu-system-")


def test_what_was_not_made_is_not_found(tmp_path: Path) -> None:
    assert qemu_arm.find_arm_qemu("debian:trixie", Workshop(Store(tmp_path))) is None


def test_what_was_made_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workshop = Workshop(Store(tmp_path))
    artifact = workshop.store.obtain("0" * 20, lambda into: (into / "a").touch(), "qemu")
    build = SimpleNamespace(identity=artifact.key)
    monkeypatch.setattr("harness.images.qemu_build.QemuBuild.resolve", lambda *_: build)

    qemu_arm.make_arm_qemu("debian:trixie", workshop)

    found = qemu_arm.find_arm_qemu("debian:trixie", workshop)
    assert found is not None
    assert found.identity == artifact.key
    assert qemu_arm.find_arm_qemu("debian:sid", workshop) is None
