"""What decodes after which writes: the books that are kept of a machine nobody looks at."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.model.address import AddressRange
from harness.model.expectation import Space
from harness.model.pci import BarKind
from harness.shapes.areas import Areas, place_shapes
from harness.shapes.programming import Programmer, Write, bridge_writes
from harness.shapes.shape import (
    Action,
    Decode,
    Gate,
    Gates,
    Place,
    Put,
    Rom,
    Shape,
    ShapeBar,
    SizeBars,
    firmware_step,
)
from harness.shapes.strategies import shapes

MIB = 1 << 20
ON = Decode(memory=True, ports=True)
AREAS = Areas(
    AddressRange(0x1000_0000, MIB), AddressRange(1 << 40, MIB), AddressRange(0x1000, 0x1000)
)
LOW, HIGH = AREAS.low.start, AREAS.high.start


def bars(*kinds: tuple[int, BarKind, int]) -> Shape:
    return Shape(tuple(ShapeBar(*kind) for kind in kinds))


THREE = bars((0, BarKind.MEM32, 0x100), (2, BarKind.MEM64, 0x4000), (4, BarKind.IO, 0x20))


def after(shape: Shape, *actions: Action) -> Programmer:
    programmer = Programmer(shape, AREAS)
    for action in actions:
        programmer.writes(action)
    return programmer


def places(shape: Shape, *actions: Action) -> dict[int, int]:
    return after(shape, *actions).decoding.places


def test_nothing_decodes_before_it_is_enabled() -> None:
    assert places(THREE, Put(0, 0x1000), Put(2, 0x4000), Put(4, 0x40)) == {}


def test_memory_and_ports_are_enabled_apart() -> None:
    puts = (Put(0, 0x1000), Put(2, 0x4000), Put(4, 0x40))

    assert places(THREE, *puts, Decode(True, False)) == {0: LOW + 0x1000, 2: LOW + 0x4000}
    assert places(THREE, *puts, Decode(False, True)) == {4: 0x1040}
    assert places(THREE, *puts, ON, Decode(False, False)) == {}


def test_what_is_put_below_its_size_is_cut_off() -> None:
    assert places(THREE, Put(0, 0x1234), ON) == {0: LOW + 0x1200}


def test_a_64_bit_bar_goes_above_4_gib_whichever_half_is_first() -> None:
    for high_first in (False, True):
        put = Put(2, 0x8000, high=True, high_first=high_first)
        assert places(THREE, put, ON) == {2: HIGH + 0x8000}


def test_what_came_last_is_last() -> None:
    puts = (Put(0, 0x1000), Put(2, 0x4000))

    assert list(places(THREE, *puts, ON)) == [0, 2]
    assert list(places(THREE, *puts, ON, Put(0, 0x2000))) == [2, 0]
    assert list(places(THREE, *puts, ON, Put(0, 0x1000))) == [0, 2]


def test_sizing_leaves_every_bar_where_it_was_but_on_top() -> None:
    puts = (Put(2, 0x4000), Put(0, 0x1000), Put(4, 0x40), ON)
    before = places(THREE, *puts)

    asked = places(THREE, *puts, SizeBars())

    assert asked == before
    assert list(asked) == [0, 2, 4]


def test_all_ones_and_zero_decode_nothing() -> None:
    programmer = after(THREE, ON)
    for value in (0xFFFF_FFFF, 0):
        programmer.decoding.write(Write(0x10, value))
        programmer.decoding.write(Write(0x20, value))
        assert programmer.decoding.places == {}


def test_a_bar_below_a_page_is_remembered_to_have_been_on_one() -> None:
    assert after(THREE, Put(0, 0x1100), ON).decoding.grown == set()
    assert after(THREE, Put(0, 0x1000), ON, Put(0, 0x1100)).decoding.grown == {0}


def test_nobody_looks_at_the_upper_half_of_the_last_slot() -> None:
    last = bars((5, BarKind.MEM64, 0x4000))

    low_first = places(last, Put(5, 0x4000), ON, Put(5, 0x8000, high=True))

    # The lower half was looked at beside the upper half of before.
    assert low_first == {5: 0x8000}
    assert places(last, ON, Put(5, 0x8000, high=True, high_first=True)) == {5: HIGH + 0x8000}


def test_the_rom_decodes_with_its_own_bit_too() -> None:
    rom = replace(THREE, rom_size=0x800)

    assert places(rom, Rom(0x8000), ON) == {6: LOW + 0x8000}
    assert places(rom, Rom(0x8000, enabled=False), ON) == {}


def test_a_bridge_passes_on_its_windows_while_it_decodes() -> None:
    behind = replace(THREE, place=Place.PORT, gates=Gates(low=AddressRange(0, MIB)))

    assert after(THREE).let_through is None
    assert after(behind).let_through == {
        Space.MEMORY: (AREAS.low, AREAS.high),
        Space.PORTS: (AREAS.ports,),
    }
    assert after(behind, Gate(False, True)).let_through == {
        Space.MEMORY: (),
        Space.PORTS: (AREAS.ports,),
    }
    programmer = Programmer(behind, AREAS)
    assert programmer.writes(Gate(False, True)) == (Write(4, 1, 2, bridge=True),)


def test_a_bridge_is_given_bus_and_windows() -> None:
    behind = replace(THREE, place=Place.BRIDGE)

    registers = {w.offset: w.value for w in bridge_writes(behind, AREAS, 3)}

    assert registers[0x18] == 0x030300
    assert registers[0x1C] == 0x1010
    assert registers[0x20] == 0x1000_1000
    assert (registers[0x24], registers[0x28], registers[0x2C]) == (0, 0x100, 0x100)
    assert registers[0x04] == 3


@settings(deadline=None)
@given(shapes())
def test_what_decodes_is_inside_the_areas_of_the_shape(shape: Shape) -> None:
    areas = place_shapes([shape])[0]
    programmer = Programmer(shape, areas)
    for step in shape.all_steps:
        for action in step:
            programmer.writes(action)

        for bar, at in programmer.decoding.places.items():
            assert at in areas.low or at in areas.high or at in areas.ports, (bar, hex(at))


@settings(deadline=None)
@given(st.data())
def test_firmware_puts_every_bar_beside_the_others(data: st.DataObject) -> None:
    shape = replace(data.draw(shapes()), steps=())
    if any(bar.size & (bar.size - 1) for bar in shape.bars):
        return
    programmer = Programmer(shape, place_shapes([shape])[0])
    for action in firmware_step(shape):
        programmer.writes(action)

    taken = [
        (bar.kind is BarKind.IO, AddressRange(programmer.decoding.places[bar.index], bar.size))
        for bar in shape.bars
        if bar.index in programmer.decoding.places
    ]
    for i, (ports, one) in enumerate(taken):
        assert not any(ports is p and one.overlaps(other) for p, other in taken[i + 1 :])


@pytest.mark.parametrize("action", [Put(1, 0), Put(5, 0x1000)])
def test_a_bar_that_is_not_there_is_not_written(action: Action) -> None:
    assert Programmer(THREE, AREAS).writes(action) == ()
