"""A shape survives its file; a wrong file is refused with the key that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from harness.errors import ConfigError
from harness.shapes.shape import Shape
from harness.shapes.shape_json import ShapeFile, read_shapes, shape_from_dict, shape_to_dict
from harness.shapes.strategies import shapes


@settings(deadline=None)
@given(shapes())
def test_a_shape_survives_json(shape: Shape) -> None:
    assert shape_from_dict(json.loads(json.dumps(shape_to_dict(shape)))) == shape


def test_a_file_keeps_title_problem_and_rules(tmp_path: Path) -> None:
    file = ShapeFile((Shape(), Shape(msi=1)), "two", "nothing answers there", ("MAP-01",))
    (tmp_path / "x.json").write_text(file.to_json())

    assert read_shapes(tmp_path / "x.json") == file


def test_a_shape_written_by_hand_may_leave_out_what_is_usual() -> None:
    shape = shape_from_dict({"bars": [{"index": 0, "kind": "mem32", "size": "0x1000"}]})

    assert shape.bars[0].direct is True
    assert (shape.express, shape.steps, shape.msix) == (True, (), None)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"format": 2}, "file.format: 2, this is 1"),
        ({"format": None}, "file.format: missing"),
        ({"shapes": []}, "there is none"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"shapes": [{"size": 1}]}, r"shapes\[0\]: unknown key 'size'"),
        ({"shapes": [{"bars": [{"index": 0, "kind": "mem16", "size": 1}]}]}, "mem16"),
        ({"shapes": [{"bars": [{"index": 0, "kind": "io"}]}]}, r"bars\[0\].size: missing"),
        ({"shapes": [{"steps": [[{"jump": 1}]]}]}, "unknown key 'jump'"),
        ({"shapes": [{"steps": [[{}]]}]}, "no action is"),
        ({"shapes": [{"steps": [{}]}]}, "expected a list"),
        ({"shapes": [{"gates": {"low": [1]}}]}, "expected 2 values"),
        ({"shapes": [{"place": "moon"}]}, "moon"),
        ({"shapes": [{"bars": [{"index": 0, "kind": "io", "size": 0}]}]}, r"bars\[0\].size: 0"),
        ({"shapes": [{"class": "0x1000000"}]}, r"\.class: 0x1000000, 0xffffff is the most"),
        ({"shapes": [{"msi": 64}]}, r"\.msi: 0x40, 0x20 is the most"),
        ({"shapes": [{"rom_size": 3}]}, r"\.rom_size: 0x3 is no power of two"),
        ({"shapes": [{"msix": {"vectors": 0, "pba_offset": 0}}]}, r"\.msix\.vectors: 0"),
        ({"shapes": [{"msix": {"vectors": 2049, "pba_offset": 0}}]}, "0x800 is the most"),
        ({"shapes": [{"msix": {"vectors": 1, "pba_offset": 4}}]}, "0x4 is no multiple of 8"),
        ({"shapes": [{"msix": {"vectors": 1, "pba_offset": 1 << 32}}]}, "0xffffffff is the most"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    place = tmp_path / "x.json"
    place.write_text(json.dumps({"format": 1, "shapes": [{}]} | change))

    with pytest.raises(ConfigError, match="no file of shapes") as refused:
        read_shapes(place)
    refused.match(complaint)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_shapes(tmp_path / "gone.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ConfigError, match="no file of shapes"):
        read_shapes(tmp_path / "x.json")
