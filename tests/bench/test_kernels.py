"""Which kernels are measured beside each other."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.bench import kernels as module
from harness.bench.kernels import BUILT, DEFAULT, kernels
from harness.bench.laboratory import Laboratory
from harness.bench.model import Role
from harness.guest.keys import RunKey
from harness.lab.parts import Parts
from harness.settings import Settings


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Kernels whose files were gathered before anything is measured."""
    names: list[str] = []

    def fake(settings: Settings, images: object) -> SimpleNamespace:
        return SimpleNamespace(settings=settings, host_files=lambda: names.append(settings.kernel))

    monkeypatch.setattr(module, "Parts", fake)
    return names


def lab(kernel: str) -> Laboratory:
    parts = Parts(Settings(kernel=kernel), images=SimpleNamespace())  # type: ignore[arg-type]
    return Laboratory(parts, RunKey(Path("key"), "public"), Path("work"))


@pytest.mark.parametrize(
    ("chosen", "built"),
    [(DEFAULT, BUILT), ("debian:sid", BUILT), ("built:7.4", "built:7.4")],
)
def test_a_compiled_kernel_is_measured_beside_the_default_one(
    gathered: list[str], chosen: str, built: str
) -> None:
    found = kernels(lab(chosen))

    assert [(one.name, one.role) for one in found.subjects] == [
        (built, Role.OURS),
        (DEFAULT, Role.PEER),
    ]
    assert gathered == [built, DEFAULT]
