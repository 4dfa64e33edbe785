"""BARs are found in the flat form by names, offsets and neighbours."""

from __future__ import annotations

import pytest

from harness.model.address import AddressRange
from harness.model.device_windows import (
    DeviceWindow,
    device_rows,
    device_windows,
    known_devices,
    named_device,
)
from harness.model.memory_map import FlatView, Kind, MemoryMap, Owner, Region
from harness.model.memory_tree import BarWindow

NVME = "0000:03:00.0"


def row(start: int, end: int, name: str, *, offset: int = 0, owner: str = "") -> Region:
    made_by = Owner("dev", "id" if owner[0] != "/" else "path", owner) if owner else None
    kind = Kind.RAMD if "mmaps" in name else Kind.IO
    return Region(AddressRange.of(start, end), kind, name, offset=offset, owner=made_by)


def windows(*rows: Region, device: str = NVME, bars: tuple[BarWindow, ...] = ()) -> list[str]:
    view = FlatView((), "system", rows)
    found = device_windows(view, device, page=0x1000, bars=bars)
    return [f"{one.label} {one.range.start:#x}-{one.range.end:#x}" for one in found]


def test_pieces_around_the_table_are_one_bar() -> None:
    found = windows(
        row(0x10000, 0x13000, f"{NVME} BAR 0 mmaps[0]"),
        row(0x13000, 0x13090, "msix-table"),
        row(0x13090, 0x14000, f"{NVME} BAR 0 mmaps[0]", offset=0x3090),
    )

    assert found == ["BAR 0 0x10000-0x14000"]


def test_a_table_at_an_end_belongs_to_the_bar_it_touches() -> None:
    found = windows(
        row(0x10000, 0x10090, "msix-table"),
        row(0x10090, 0x12000, f"{NVME} BAR 0 mmaps[0]", offset=0x90),
        row(0x20000, 0x21000, f"{NVME} BAR 2 mmaps[0]"),
        row(0x21000, 0x22000, "msix-table"),
    )

    assert found == ["BAR 0 0x10000-0x12000", "BAR 2 0x20000-0x22000"]


def test_a_table_between_two_bars_belongs_to_the_one_that_is_not_complete() -> None:
    found = windows(
        row(0x10000, 0x14000, f"{NVME} BAR 0 mmaps[0]"),
        row(0x14000, 0x14800, "msix-table"),
        row(0x14800, 0x18000, f"{NVME} BAR 3 mmaps[0]", offset=0x800),
    )

    assert found == ["BAR 0 0x10000-0x14000", "BAR 3 0x14000-0x18000"]


def test_the_offset_of_the_slow_row_tells_where_the_bar_begins() -> None:
    found = windows(row(0x10810, 0x11000, f"{NVME} BAR 3", offset=0x810))

    assert found == ["BAR 3 0x10000-0x11000"]


def test_a_quirk_window_belongs_to_the_bar_around_it() -> None:
    quirk = "vfio-nvidia-bar0-88000-mirror-quirk"
    found = windows(
        row(0, 0x88000, f"{NVME} BAR 0 mmaps[0]"),
        row(0x88000, 0x89000, quirk),
        row(0x89000, 0x100000, f"{NVME} BAR 0 mmaps[0]", offset=0x89000),
    )

    assert found == ["BAR 0 0x0-0x100000"]


def test_the_tree_form_tells_better_than_the_rows() -> None:
    bar = BarWindow(NVME, 0, AddressRange(0x10000, 0x8000))

    found = windows(row(0x10000, 0x13000, f"{NVME} BAR 0 mmaps[0]"), bars=(bar,))

    assert found == ["BAR 0 0x10000-0x18000"]


def test_an_expansion_rom_beside_a_bar_is_not_part_of_it() -> None:
    found = windows(
        row(0x10000, 0x14000, f"{NVME} BAR 0 mmaps[0]"),
        row(0x14000, 0x18000, f"vfio[{NVME}].rom"),
    )

    assert found == ["BAR 0 0x10000-0x14000", "window 0x14000-0x18000"]


def test_the_table_of_another_owner_is_left_alone() -> None:
    found = windows(
        row(0x10000, 0x14000, f"{NVME} BAR 0 mmaps[0]", owner="nvme0"),
        row(0x14000, 0x14090, "msix-table", owner="e0"),
        device="nvme0",
    )

    assert found == ["BAR 0 0x10000-0x14000"]


def test_rows_of_an_emulated_device_less_than_a_page_apart_are_one_window() -> None:
    found = windows(
        row(0x10000, 0x12000, "nvme", owner="n"),
        row(0x12000, 0x12410, "msix-table", owner="n"),
        row(0x13000, 0x13010, "msix-pba", owner="n"),
        row(0x15000, 0x15010, "far", owner="n"),
        device="n",
    )

    assert found == ["window 0x10000-0x13010", "window 0x15000-0x15010"]


def test_ports_are_joined_only_where_they_touch() -> None:
    view = FlatView((), "io", (row(0, 8, "a", owner="n"), row(16, 24, "b", owner="n")))

    found = device_windows(view, "n", page=4096, port=True)

    assert found == (
        DeviceWindow(AddressRange(0, 8), None, port=True),
        DeviceWindow(AddressRange(16, 8), None, port=True),
    )


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("0000:03:00.0 BAR 3", "0000:03:00.0"),
        ("0000:03:00.0 BAR 0 mmaps[1]", "0000:03:00.0"),
        ("VFIO 0000:03:00.0 BAR 0 mmap msix-hi", "0000:03:00.0"),
        ("83b8f4f2-509f-382f-3c1e-e6bfe0fa1001 BAR 0", "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"),
        ("vfio[0000:03:00.0].rom", "0000:03:00.0"),
        ("msix-table", None),
        ("0000:03:00.0 BAR 6", None),
    ],
)
def test_the_name_of_a_row_tells_the_assigned_device(name: str, device: str | None) -> None:
    assert named_device(row(0, 1, name)) == device


def test_a_device_is_its_id_its_path_or_a_part_below_it() -> None:
    view = FlatView(
        (),
        "system",
        (
            row(0, 1, "a", owner="xhci0"),
            row(1, 2, "b", owner="/machine/peripheral/xhci0/xhci-core"),
            row(2, 3, "c", owner="/machine/peripheral/xhci01/x"),
        ),
    )

    assert [one.name for one in device_rows(view, "xhci0")] == ["a", "b"]
    assert [one.name for one in device_rows(view, "/machine/peripheral/xhci01/x")] == ["c"]


def test_devices_are_known_by_id_and_by_name() -> None:
    view = FlatView((), "x", (row(0, 1, f"{NVME} BAR 0", owner="n"), row(1, 2, "x", owner="/q")))

    assert known_devices(MemoryMap((view,))) == (NVME, "n")
