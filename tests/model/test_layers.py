"""What shows of stacked regions, against painting byte by byte."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from harness.model.address import AddressRange
from harness.model.layers import Layer, paint
from harness.model.memory_map import Kind

layers = st.lists(
    st.builds(
        lambda start, size, name: Layer(AddressRange(start, size), Kind.IO, name, "MAP-01"),
        st.integers(0, 40),
        st.integers(1, 40),
        st.uuids().map(str),
    ),
    max_size=6,
    unique_by=lambda layer: layer.name,
).map(tuple)
windows = st.builds(AddressRange, st.integers(0, 40), st.integers(1, 60))


@given(windows, layers)
def test_every_byte_shows_the_highest_layer(
    window: AddressRange, stack: tuple[Layer, ...]
) -> None:
    bytewise = {
        at: next((layer for layer in reversed(stack) if at in layer.range), None)
        for at in range(window.start, window.end)
    }

    painted = {
        at: p.layer for p in paint(window, stack) for at in range(p.range.start, p.range.end)
    }

    assert painted == {at: layer for at, layer in bytewise.items() if layer is not None}


@given(windows, layers)
def test_pieces_are_ascending_disjoint_and_as_long_as_can_be(
    window: AddressRange, stack: tuple[Layer, ...]
) -> None:
    pieces = paint(window, stack)

    for before, after in pairwise(pieces):
        assert before.range.end <= after.range.start
        assert before.range.end < after.range.start or before.layer is not after.layer
    assert all(p.offset == p.range.start - p.layer.range.start >= 0 for p in pieces)


def test_a_layer_cut_in_two_keeps_its_offsets() -> None:
    bottom = Layer(AddressRange(0, 0x4000), Kind.RAMD, "mmaps[0]", "MAP-04")
    top = Layer(AddressRange(0x2000, 0x410), Kind.IO, "msix-table", "MAP-02")

    pieces = paint(AddressRange(0, 0x4000), (bottom, top))

    assert [(p.range.start, p.layer.name, p.offset) for p in pieces] == [
        (0, "mmaps[0]", 0),
        (0x2000, "msix-table", 0),
        (0x2410, "mmaps[0]", 0x2410),
    ]
