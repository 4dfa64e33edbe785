"""Maps that are altered for negative controls."""

from harness.model.address import AddressRange
from harness.model.memory_map import FlatView, Kind, MemoryMap, Region

RAM = Region(AddressRange(0, 0x1000), Kind.RAM, "pc.ram")
TABLE = Region(AddressRange(0x2000, 0x410), Kind.IO, "msix-table")
FOUND = MemoryMap(
    (FlatView((), "system", (RAM, TABLE)), FlatView((), "bus master container", (TABLE,)))
)


def test_a_map_loses_rows_by_a_word_of_their_names_in_every_view() -> None:
    assert [view.regions for view in FOUND.without("msix")] == [(RAM,), ()]


def test_a_map_without_such_rows_stays_the_same() -> None:
    assert FOUND.without("BAR 0") == FOUND
