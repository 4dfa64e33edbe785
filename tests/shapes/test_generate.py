"""The same seed makes the same shapes, wherever; what fails is made small."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from harness.model.pci import BarKind
from harness.model.row_rule import RowRule
from harness.model.version import QemuVersion
from harness.model.vfio.expectation import expect_vfio
from harness.model.vfio.mapping import VfioRefused
from harness.shapes import generate
from harness.shapes.areas import place_shapes
from harness.shapes.generate import make_chunk, shrink
from harness.shapes.mutants import UNREACHABLE
from harness.shapes.programming import Programmer
from harness.shapes.served import case_of
from harness.shapes.shape import Place, Shape

QEMU = QemuVersion(11, 1, 3)
PROGRAM = """
import hashlib
from harness.shapes.generate import make_chunk
print(hashlib.sha256(repr(make_chunk(7, 3, 24)).encode()).hexdigest())
"""


def fingerprint(shapes: list[Shape]) -> str:
    return hashlib.sha256(repr(shapes).encode()).hexdigest()


def test_a_seed_means_the_same_in_a_process_that_knows_little_else(tmp_path: Path) -> None:
    """Hypothesis takes constants from the modules that are loaded; a seed must not notice."""
    alone = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert alone.stdout.strip() == fingerprint(make_chunk(7, 3, 24))


def test_chunks_and_seeds_differ() -> None:
    chunks = [make_chunk(1, 0, 20), make_chunk(1, 1, 20), make_chunk(2, 0, 20)]

    assert len({fingerprint(chunk) for chunk in chunks}) == 3
    assert all(len(set(chunk)) == 20 for chunk in chunks)


def test_what_fails_is_made_small() -> None:
    def fails(shape: Shape) -> bool:
        return any(bar.kind is BarKind.MEM64 and bar.size >= 0x4000 for bar in shape.bars)

    failing = next(shape for shape in make_chunk(5, 0, 48) if fails(shape))

    smallest = shrink(5, 0, 48, failing, fails)

    assert fails(smallest)
    assert len(smallest.bars) == 1
    assert smallest.bars[0].size == 0x4000
    assert (smallest.msix, smallest.steps, smallest.place) == (None, (), Place.ROOT)


def test_what_fails_no_more_stays_as_it_was() -> None:
    failing = make_chunk(5, 0, 48)[2]

    assert shrink(5, 0, 48, failing, lambda shape: False) == failing


def test_shrinking_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "MOST_TRIES", 5)
    tries: list[Shape] = []

    def fails(shape: Shape) -> bool:
        tries.append(shape)
        return True

    shrink(5, 0, 48, make_chunk(5, 0, 48)[30], fails)

    assert len(tries) <= 5


def test_shapes_meet_every_rule_that_they_can() -> None:
    rules: set[str] = set()
    refusals: set[str] = set()
    for number in range(20):
        for shape in make_chunk(9, number, 48):
            programmer = Programmer(shape, place_shapes([shape])[0])
            try:
                for step in shape.all_steps:
                    for action in step:
                        programmer.writes(action)
                    case = case_of(shape, qemu=QEMU, name="s0", programmer=programmer)
                    rules |= {row.rule for _, row in expect_vfio(case).rows}
            except VfioRefused as refused:
                refusals.add(str(refused)[:20])

    assert rules == {str(rule) for rule in RowRule} - set(UNREACHABLE)
    assert refusals == {
        "hardware reports inv", "table & pba overlap,", "overlapping sparse m",
        "invalid MSI-X BIR, t",
    }  # fmt: skip
