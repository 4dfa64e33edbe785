"""Places to touch, on a BAR made by hand."""

from hypothesis import given
from hypothesis import strategies as st

from harness.model.address import AddressRange
from harness.model.memory_map import FlatView, Kind, Region
from harness.model.places import places_by_class
from harness.model.trap import TrapClass, predicted_class

BASE = 0xFE000000


def view(*rows: tuple[int, int, Kind, str]) -> FlatView:
    return FlatView(
        (), "system", tuple(Region(AddressRange(BASE + a, n), k, name) for a, n, k, name in rows)
    )


NVME = view(
    (0, 0x2000, Kind.RAMD, "0000:01:00.0 BAR 0 mmaps[0]"),
    (0x2000, 0x410, Kind.IO, "msix-table"),
    (0x2410, 0x1BF0, Kind.RAMD, "0000:01:00.0 BAR 0 mmaps[0]"),
)


def test_each_row_of_a_mixed_page_is_touched_once() -> None:
    found = places_by_class(NVME, AddressRange(BASE, 0x4000), in_page=0xFF8)

    assert found == {
        TrapClass.DIRECT: (0xFF8, 0x1FF8, 0x3FF8),
        TrapClass.TABLE: (0x2000,),
        TrapClass.RAM_DEVICE: (0x2410,),
    }


def test_a_gap_is_touched_too() -> None:
    holed = NVME.without("msix-table")

    found = places_by_class(holed, AddressRange(BASE, 0x4000), in_page=0xFF8)

    assert found[TrapClass.ABSENT] == (0x2000,)


@given(pages=st.integers(1, 300), most=st.integers(1, 9))
def test_a_long_run_is_sampled_at_both_ends_and_between(pages: int, most: int) -> None:
    whole = view((0, pages * 4096, Kind.RAMD, "0000:00:0c.0 BAR 0 mmaps[0]"))
    window = AddressRange(BASE, pages * 4096)

    (offsets,) = places_by_class(whole, window, in_page=8, most=most).values()

    assert len(offsets) == min(pages, most)
    assert offsets[0] == 8
    assert most == 1 or offsets[-1] == (pages - 1) * 4096 + 8
    assert all(predicted_class(whole.regions, BASE + o) is TrapClass.DIRECT for o in offsets)
