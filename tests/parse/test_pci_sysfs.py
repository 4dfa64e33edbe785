"""Sysfs files to functions: BARs come from ``resource``."""

import struct

import pytest

from harness.errors import ParseError
from harness.model.pci import Bar, BarKind, Bdf, PciId
from harness.parse.pci_sysfs import parse_function, parse_resource

NONE = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
BDF = Bdf.parse("0000:01:00.0")


def line(start: int, end: int, flags: int) -> str:
    return f"0x{start:016x} 0x{end:016x} 0x{flags:016x}\n"


def config(*, vfs: int = 0) -> bytes:
    data = bytearray(4096)
    struct.pack_into("<HHHH", data, 0, 0x8086, 0x10C9, 6, 0x10)
    struct.pack_into("<I", data, 8, 0x02000001)
    data[0x3D], data[0x34], data[0x40] = 1, 0x40, 0x10
    if vfs:
        struct.pack_into("<I", data, 0x100, 0x0010 | 1 << 16)
        struct.pack_into("<H", data, 0x10E, vfs)
    return bytes(data)


PF = (
    line(0xFE400000, 0xFE41FFFF, 0x40200)
    + line(0xFE420000, 0xFE43FFFF, 0x40200)
    + line(0xC000, 0xC01F, 0x40101)
    + line(0xFE440000, 0xFE443FFF, 0x40200)
    + NONE
    + NONE
    + line(0xFE480000, 0xFE4FFFFF, 0x46200)
    + line(0x380000000000, 0x38000001FFFF, 0x14220C)
    + NONE * 2
    + line(0x380000020000, 0x38000003FFFF, 0x14220C)
    + NONE * 2
)


def test_bars_are_read_from_resource() -> None:
    function = parse_function(BDF, config(), PF, "igb", 7)

    assert function.bars == (
        Bar(0, BarKind.MEM32, 0x20000, address=0xFE400000),
        Bar(1, BarKind.MEM32, 0x20000, address=0xFE420000),
        Bar(2, BarKind.IO, 0x20, address=0xC000),
        Bar(3, BarKind.MEM32, 0x4000, address=0xFE440000),
    )
    assert function.rom_size == 0x80000
    assert (function.driver, function.iommu_group) == ("igb", 7)
    assert function.is_express
    assert function.config_size == 4096


def test_bars_of_virtual_functions_are_those_of_one() -> None:
    function = parse_function(BDF, config(vfs=8), PF)

    assert function.vf_bars == (
        Bar(0, BarKind.MEM64, 0x4000, prefetchable=True, address=0x380000000000),
        Bar(3, BarKind.MEM64, 0x4000, prefetchable=True, address=0x380000020000),
    )


def test_windows_of_a_bridge_are_not_bars_of_virtual_functions() -> None:
    assert parse_function(BDF, config(), PF).vf_bars == ()


def test_a_64_bit_prefetchable_bar_keeps_its_place() -> None:
    text = line(0x3800_0000_0000, 0x3800_007F_FFFF, 0x14220C) + NONE * 6

    assert parse_resource(text)[0].bar(0) == Bar(
        0, BarKind.MEM64, 0x800000, prefetchable=True, address=0x3800_0000_0000
    )


def test_a_bar_without_an_address_is_not_programmed() -> None:
    text = line(0, 0x3FFF, 0x20040200) + line(0x1000, 0x1FFF, 0x20040200) + NONE * 5

    assert [r.bar(r.index).address for r in parse_resource(text)] == [None, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 lines"),
        (NONE * 6, "6 lines"),
        (NONE * 3 + "0x0 0x0 0x0\n" + NONE * 3, "resource:4"),
        (line(0x2000, 0x1000, 0x200) + NONE * 6, "ends before"),
        (line(0x1000, 0x1FFF, 0x40000) + NONE * 6, "neither memory nor ports"),
        ("<html>", "not a 'start end flags' line"),
    ],
)
def test_a_broken_resource_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        parse_resource(text)


def virtual() -> bytes:
    return b"\xff" * 4 + config()[4:]


def test_the_ids_of_a_virtual_function_are_those_the_kernel_knows() -> None:
    function = parse_function(BDF, virtual(), PF, pci_id=PciId(0x8086, 0x10CA))

    assert function.id == PciId(0x8086, 0x10CA)
    assert function.config == virtual(), "what was read stays as it was read"


def test_registers_are_believed_where_they_hold_ids() -> None:
    function = parse_function(BDF, config(), PF, pci_id=PciId(0x8086, 0x10CA))

    assert function.id == PciId(0x8086, 0x10C9)


@pytest.mark.parametrize("read", [virtual(), b"\xff" * 4096])
def test_a_function_without_ids_is_refused(read: bytes) -> None:
    known = PciId(0x8086, 0x10CA) if read != virtual() else None

    with pytest.raises(ParseError, match="vendor id reads ffff"):
        parse_function(BDF, read, PF, pci_id=known)
