"""Configuration space: capabilities, MSI, MSI-X, and everything that can be broken in it."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ParseError
from harness.model.pci import Capability, MsiCapability, MsixCapability, PciId
from harness.parse.config_space import parse_config


def config(size: int = 256, capabilities: bool = True) -> bytearray:
    """An nvme as QEMU makes it, with an empty capability list."""
    data = bytearray(size)
    struct.pack_into("<HHHH", data, 0, 0x1B36, 0x0010, 0x0006, 0x0010 if capabilities else 0)
    struct.pack_into("<I", data, 8, 0x01080202)
    struct.pack_into("<HH", data, 0x2C, 0x1AF4, 0x1100)
    data[0x3C:0x3E] = bytes([11, 1])
    return data


def link(data: bytearray, *chain: tuple[int, int]) -> None:
    """Write a chain of (id, offset) standard capabilities."""
    data[0x34] = chain[0][1]
    for (cap_id, offset), following in zip(chain, [*chain[1:], (0, 0)], strict=True):
        data[offset], data[offset + 1] = cap_id, following[1]


def nvme(size: int = 256) -> bytearray:
    data = config(size)
    link(data, (0x11, 0x40), (0x10, 0x80), (0x01, 0x60))
    struct.pack_into("<HII", data, 0x42, 0x8000 | 64, 0x2000, 0x3000)
    return data


def test_the_header_is_read() -> None:
    facts = parse_config(bytes(nvme()))

    assert (facts.id, facts.class_code, facts.revision) == (PciId(0x1B36, 0x10), 0x010802, 2)
    assert (facts.interrupt_pin, facts.interrupt_line, facts.header_type) == (1, 11, 0)
    assert facts.subsystem == PciId(0x1AF4, 0x1100)
    assert not facts.multifunction
    assert facts.complete


def test_capabilities_come_in_the_order_of_the_list() -> None:
    facts = parse_config(bytes(nvme()))

    assert facts.capabilities == (
        Capability(0x11, 0x40),
        Capability(0x10, 0x80),
        Capability(0x01, 0x60),
    )


def test_msix_is_decoded() -> None:
    assert parse_config(bytes(nvme())).msix == MsixCapability(0x40, 65, 0, 0x2000, 0, 0x3000, True)


def test_msix_in_another_bar_is_decoded() -> None:
    data = nvme()
    struct.pack_into("<HII", data, 0x42, 0x7FF, 0x1003, 0x2004)

    assert parse_config(bytes(data)).msix == MsixCapability(
        0x40, 2048, 3, 0x1000, 4, 0x2000, False
    )


def test_msi_is_decoded() -> None:
    data = config()
    link(data, (0x05, 0x50))
    struct.pack_into("<H", data, 0x52, 0x0187)

    assert parse_config(bytes(data)).msi == MsiCapability(0x50, 8, True, True, True)


def test_extended_capabilities_follow_the_standard_ones() -> None:
    data = nvme(4096)
    struct.pack_into("<I", data, 0x100, 0x0001 | 2 << 16 | 0x140 << 20)
    struct.pack_into("<I", data, 0x140, 0x0010 | 1 << 16)
    struct.pack_into("<H", data, 0x140 + 0x0E, 7)

    facts = parse_config(bytes(data))

    assert facts.capabilities[3:] == (
        Capability(0x01, 0x100, extended=True),
        Capability(0x10, 0x140, extended=True),
    )
    assert facts.total_vfs == 7


@pytest.mark.parametrize("word", [0, 0xFFFFFFFF])
def test_extended_space_may_be_empty(word: int) -> None:
    data = nvme(4096)
    struct.pack_into("<I", data, 0x100, word)

    assert all(not c.extended for c in parse_config(bytes(data)).capabilities)


def test_a_hidden_extended_capability_is_passed_over() -> None:
    data = nvme(4096)
    struct.pack_into("<I", data, 0x100, 0x140 << 20)
    struct.pack_into("<I", data, 0x140, 0x0003 | 1 << 16)

    assert parse_config(bytes(data)).capabilities[3:] == (Capability(3, 0x140, extended=True),)


def test_the_list_is_not_followed_where_the_status_bit_is_clear() -> None:
    data = config(capabilities=False)
    data[0x34] = 0x40

    assert parse_config(bytes(data)).capabilities == ()


def test_the_bridge_header_has_no_subsystem() -> None:
    data = nvme()
    data[0x0E] = 0x81

    facts = parse_config(bytes(data))

    assert (facts.header_type, facts.multifunction, facts.subsystem) == (1, True, None)


def broken(change: str) -> bytes:
    data = nvme(4096)
    match change:
        case "loop":
            data[0x61] = 0x40
        case "self loop":
            data[0x41] = 0x40
        case "header pointer":
            data[0x34] = 0x20
        case "dead capability":
            data[0x60] = 0xFF
        case "dead device":
            data[:] = b"\xff" * 4096
        case "extended loop":
            struct.pack_into("<I", data, 0x100, 1 | 0x140 << 20)
            struct.pack_into("<I", data, 0x140, 2 | 0x100 << 20)
        case "extended pointer":
            struct.pack_into("<I", data, 0x100, 1 | 0x80 << 20)
        case "table bar":
            struct.pack_into("<I", data, 0x44, 0x2006)
        case "pba bar":
            struct.pack_into("<I", data, 0x48, 0x3007)
        case "header type":
            data[0x0E] = 0x7F
        case "size":
            del data[300:]
        case "empty":
            del data[:]
        case "64 bytes":
            del data[64:]
        case "cut msix":
            del data[256:]
            link(data, (0x11, 0xFC))
    return bytes(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("loop", "loops back to 0x40"),
        ("self loop", "loops back to 0x40"),
        ("header pointer", "0x20 is inside the header"),
        ("dead capability", "reads ff"),
        ("dead device", "does not answer"),
        ("extended loop", "loops back to 0x100"),
        ("extended pointer", "0x80 is below 0x100"),
        ("table bar", "MSI-X table is in BAR 6"),
        ("pba bar", "MSI-X PBA is in BAR 7"),
        ("header type", "header type 0x7f"),
        ("size", "300 bytes"),
        ("empty", "0 bytes"),
        ("64 bytes", "as root"),
        ("cut msix", "ends at 0x100"),
    ],
)
def test_broken_space_is_refused_with_its_place(change: str, message: str) -> None:
    with pytest.raises(ParseError, match=message) as raised:
        parse_config(broken(change), "0000:01:00.0/config")

    assert raised.value.where.startswith("0000:01:00.0/config, offset 0x")


def test_64_bytes_are_taken_on_request() -> None:
    facts = parse_config(bytes(nvme()[:64]), allow_truncated=True)

    assert (facts.complete, facts.capabilities, facts.msix) == (False, (), None)


def test_64_bytes_are_complete_without_capabilities() -> None:
    assert parse_config(bytes(config(capabilities=False)[:64])).complete


@given(st.sampled_from([0, 64, 256, 4096, 100]), st.randoms(use_true_random=False))
def test_random_bytes_parse_or_are_refused(size: int, random: object) -> None:
    data = random.randbytes(size)  # type: ignore[attr-defined]
    try:
        parse_config(data)
    except ParseError as error:
        assert error.where
