"""Shapes that are known to kill QEMU are told from all others."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.model.address import AddressRange
from harness.model.pci import BarKind
from harness.shapes.known import ABSENT_BAR, BEYOND, ODD_SIZE, known_crash
from harness.shapes.shape import Shape, ShapeBar, ShapeMsix

BAR = ShapeBar(0, BarKind.MEM32, 0x4000)


def with_area(start: int, size: int) -> Shape:
    return Shape((ShapeBar(0, BarKind.MEM32, 0x4000, direct=(AddressRange(start, size),)),))


@pytest.mark.parametrize(
    ("shape", "page"),
    [
        (Shape((BAR,)), ""),
        (Shape((BAR,), ShapeMsix(1, 0, 0, 0, 0x800)), ""),
        (Shape((BAR,), ShapeMsix(1, 1, 0, 0, 0x800)), ABSENT_BAR),
        (Shape((BAR,), ShapeMsix(1, 0, 0, 1, 0x800)), ABSENT_BAR),
        (Shape((ShapeBar(0, BarKind.MEM32, 0x3000),)), ODD_SIZE),
        (with_area(0x2000, 0x2000), ""),
        (with_area(0x2000, 0x2001), BEYOND),
        (with_area(0x8000, 0x1000), BEYOND),
    ],
)
def test_known_crashes_have_a_page(shape: Shape, page: str) -> None:
    assert known_crash(shape) == page


@pytest.mark.parametrize("page", [ABSENT_BAR, BEYOND])
def test_the_page_is_there(page: str) -> None:
    assert (Path(__file__).parents[2] / page).is_file()
