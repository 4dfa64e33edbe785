"""Each shape has areas of its own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.model.pci import BarKind
from harness.shapes.areas import HIGH, LOW, PORTS, NoRoom, how_many_fit, place_shapes
from harness.shapes.shape import Put, Shape, ShapeBar
from harness.shapes.strategies import shapes

LARGE = Shape((ShapeBar(0, BarKind.MEM32, 1 << 30),))


@settings(deadline=None)
@given(st.lists(shapes(), min_size=1, max_size=8))
def test_areas_are_apart_and_hold_every_bar(many: list[Shape]) -> None:
    fitting = many[: how_many_fit(many, 8)]
    areas = place_shapes(fitting)

    for whole, name in ((LOW, "low"), (HIGH, "high"), (PORTS, "ports")):
        ranges = [getattr(area, name) for area in areas]
        assert all(whole.covers(one) for one in ranges)
        assert not any(a.overlaps(b) for i, a in enumerate(ranges) for b in ranges[i + 1 :])
    for shape, area in zip(fitting, areas, strict=True):
        for action in shape.actions():
            if isinstance(action, Put) and (bar := shape.bar(action.bar)) is not None:
                ports = bar.kind is BarKind.IO
                room = area.ports if ports else area.high if action.high else area.low
                assert action.at + bar.size <= room.size
                assert room.start % (bar.size & -bar.size) == 0


def test_what_does_not_fit_beside_others_is_found_out() -> None:
    assert how_many_fit([LARGE] * 5, 8) == 2
    assert how_many_fit([LARGE], 8) == 1
    with pytest.raises(NoRoom):
        place_shapes([LARGE] * 4)


def test_a_small_bar_leaves_room_for_the_container_it_may_leave_behind() -> None:
    small = Shape((ShapeBar(0, BarKind.IO, 0x10),), steps=((Put(0, 0x60),),))

    assert place_shapes([small])[0].ports.size == 0x2000
