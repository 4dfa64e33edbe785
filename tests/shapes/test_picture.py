"""A shape as a person sees it."""

from __future__ import annotations

from dataclasses import replace

from harness.model.address import AddressRange
from harness.model.pci import BarKind
from harness.shapes.picture import shape_lines
from harness.shapes.shape import (
    Decode,
    Gate,
    Gates,
    Place,
    Put,
    Rom,
    Shape,
    ShapeBar,
    ShapeMsix,
    SizeBars,
)

SHAPE = Shape(
    bars=(
        ShapeBar(0, BarKind.MEM64, 0x8000, True, (AddressRange(0, 0x2000),)),
        ShapeBar(2, BarKind.IO, 0x20, direct=False),
    ),
    msix=ShapeMsix(256, 0, 0x4000, 0, 0x6000),
    place=Place.PORT,
    gates=Gates(low=AddressRange(0, 0x100000)),
    rom_size=0x800,
    steps=(
        (Put(0, 0x8000, high=True, high_first=True), Rom(0x1000), Decode(True, False)),
        (SizeBars(), Gate(False, True)),
    ),
)


def test_a_shape_is_shown_bar_by_bar_and_step_by_step() -> None:
    assert list(shape_lines(SHAPE)) == [
        "device 1234:5a5a, class ff0000, PCI Express, behind a PCI Express root port, "
        "ROM of 2 KiB",
        "  the bridge passes on of low: 0x0-0xfffff",
        "  BAR 0: mem64, 32 KiB, prefetchable, direct in 0x0-0x1fff",
        "    |================................TTTTTTTT........P...............|",
        "  BAR 2: io, 32 bytes, not direct",
        "    |................................|",
        "  MSI-X: 256 vectors",
        "    table: BAR 0 0x4000-0x4fff",
        "    PBA:   BAR 0 0x6000-0x601f",
        "  step 1: BAR 0 at +0x8000 above 4 GiB, upper half first; ROM at +0x1000, on; "
        "memory on, ports off",
        "  step 2: ask each BAR for its size; bridge: memory off, ports on",
    ]


def test_a_table_with_the_pba_in_it_is_crossed_out() -> None:
    wrong = replace(SHAPE, msix=ShapeMsix(1, 2, 0, 2, 8))

    assert "    |XXXXXXXXXXXXXXXX................|" not in list(shape_lines(wrong))
    assert "    |TTTTTTTTXXXXXXXX................|" in list(shape_lines(wrong))
