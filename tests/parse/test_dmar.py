"""The ACPI DMAR table and the header of ACPI tables."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ParseError
from harness.model.address import AddressRange
from harness.model.vtd.dmar_table import Andd, DeviceScope, OtherStructure, Rhsa, ScopeType
from harness.parse.acpi import parse_acpi_table
from harness.parse.dmar import parse_dmar


def table(body: bytes, signature: bytes = b"DMAR") -> bytes:
    raw = bytearray(
        struct.pack(
            "<4sIBB6s8sI4sI",
            signature,
            36 + len(body),
            1,
            0,
            b"BOCHS ",
            b"BXPC    ",
            1,
            b"BXPC",
            1,
        )
        + body
    )
    raw[9] = -sum(raw) % 256
    return bytes(raw)


def fixed(width: int = 48, flags: int = 1) -> bytes:
    return bytes([width - 1, flags]) + bytes(10)


IOAPIC_SCOPE = bytes([3, 8, 0, 0, 0, 0xFF, 0, 0])
ENDPOINT_SCOPE = bytes([1, 8, 0, 0, 0, 0, 3, 0])
BRIDGE_SCOPE = bytes([2, 10, 0, 0, 0, 0, 0x1C, 0, 2, 1])
SCOPES = IOAPIC_SCOPE + ENDPOINT_SCOPE + BRIDGE_SCOPE
DRHD = struct.pack("<HHBBHQ", 0, 16 + len(SCOPES), 0, 0, 0, 0xFED90000) + SCOPES
ATSR = struct.pack("<HHBBH", 2, 8, 1, 0, 0)


def test_table_as_qemu_builds_it() -> None:
    dmar = parse_dmar(table(fixed() + DRHD + ATSR))

    (unit,) = dmar.units
    assert dmar.address_width == 48
    assert dmar.interrupt_remapping
    assert not dmar.x2apic_opt_out
    assert (unit.segment, unit.base, unit.include_all) == (0, 0xFED90000, False)
    assert unit.scopes == (
        DeviceScope(ScopeType.IOAPIC, 0, 0xFF, ((0, 0),)),
        DeviceScope(ScopeType.ENDPOINT, 0, 0, ((3, 0),)),
        DeviceScope(ScopeType.BRIDGE, 0, 0, ((0x1C, 0), (2, 1))),
    )
    assert [port.all_ports for port in dmar.ats_ports] == [True]


def test_table_without_intremap_and_device_iotlb() -> None:
    dmar = parse_dmar(table(fixed(39, 0) + DRHD))

    assert dmar.address_width == 39
    assert not dmar.interrupt_remapping
    assert dmar.ats_ports == ()


def test_structures_of_real_machines() -> None:
    rmrr = struct.pack("<HHHHQQ", 1, 32, 0, 0, 0x7B800000, 0x7B9FFFFF) + ENDPOINT_SCOPE
    rhsa = struct.pack("<HHIQI", 3, 20, 0, 0xFED91000, 1)
    andd = struct.pack("<HH3xB", 4, 16, 9) + b"\\_SB.X\0\0"
    satc = struct.pack("<HHBBH", 5, 16, 1, 0, 0) + ENDPOINT_SCOPE
    odd = struct.pack("<HH", 77, 6) + b"ab"

    dmar = parse_dmar(table(fixed(46, 7) + rmrr + rhsa + andd + satc + odd))

    assert dmar.reserved_memory[0].range == AddressRange.of(0x7B800000, 0x7BA00000)
    assert Rhsa(0xFED91000, 1) in dmar.structures
    assert Andd(9, "\\_SB.X") in dmar.structures
    assert dmar.structures[-1] == OtherStructure(77, odd)
    assert dmar.dma_opt_in


def test_every_truncation_is_an_error() -> None:
    body = fixed() + DRHD + ATSR
    whole = table(body)
    for size in range(len(whole)):
        with pytest.raises(ParseError):
            parse_dmar(whole[:size])
    ends = {12, 12 + len(DRHD), len(body)}
    for size in set(range(len(body))) - ends:
        with pytest.raises(ParseError):
            parse_dmar(table(body[:size]))


@pytest.mark.parametrize(
    "structure",
    [
        struct.pack("<HH", 0, 3),
        struct.pack("<HH", 0, 8) + bytes(4),
        struct.pack("<HH", 0, 400) + bytes(12),
        struct.pack("<HHHHQQ", 1, 24, 0, 0, 0x2000, 0x1000),
        DRHD[:2] + struct.pack("<H", 22) + DRHD[4:16] + bytes([1, 9, 0, 0, 0, 0]),
    ],
    ids=["too-short", "no-room-for-fields", "beyond-the-end", "backwards", "scope-beyond"],
)
def test_structure_that_lies_is_an_error(structure: bytes) -> None:
    with pytest.raises(ParseError):
        parse_dmar(table(fixed() + structure))


def test_header_is_checked() -> None:
    good = table(b"abc", b"WAET")

    parsed = parse_acpi_table(good, signature="WAET")

    assert (parsed.oem, parsed.oem_table, parsed.body) == ("BOCHS", "BXPC", b"abc")
    with pytest.raises(ParseError, match="signature"):
        parse_acpi_table(good, signature="DMAR")
    with pytest.raises(ParseError, match="says it has"):
        parse_acpi_table(good + b"\0")
    with pytest.raises(ParseError, match="add up"):
        parse_acpi_table(good[:-1] + b"d")


@given(st.binary(max_size=80))
def test_garbage_is_read_or_refused(body: bytes) -> None:
    try:
        parse_dmar(table(body))
    except ParseError as error:
        assert error.where.startswith("DMAR")
