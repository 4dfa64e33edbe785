"""Configuration space: what is built is what the parser reads, and every bit behaves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.device.config_space import (
    Capabilities,
    ConfigSpace,
    Effect,
    Identity,
    build,
)
from harness.device.spec import (
    AerSpec,
    BarSpec,
    ExpressSpec,
    MsiSpec,
    MsixSpec,
    PowerSpec,
    RawCapability,
    check_bars,
)
from harness.errors import ConfigError
from harness.model.pci import BarKind, PciId
from harness.parse.config_space import parse_config

IDENTITY = Identity(PciId(0x8086, 0x37C9), 0x0B4000, 4, PciId(0x8086, 0), 1, 0x10000)


def made(*bars: BarSpec, caps: Capabilities | None = None) -> ConfigSpace:
    return build(IDENTITY, bars, caps or Capabilities())


def sized(config: ConfigSpace, index: int) -> int:
    at = 0x10 + 4 * index
    config.write(at, b"\xff\xff\xff\xff")
    return int.from_bytes(config.read(at, 4), "little")


def test_the_header_is_read_back() -> None:
    parsed = parse_config(bytes(made().data))

    assert parsed.id == PciId(0x8086, 0x37C9)
    assert (parsed.class_code, parsed.revision) == (0x0B4000, 4)
    assert parsed.subsystem == PciId(0x8086, 0)
    assert parsed.interrupt_pin == 1
    assert parsed.capabilities == ()


def test_every_capability_is_read_back() -> None:
    caps = Capabilities(
        PowerSpec(),
        MsiSpec(8, maskable=True),
        ExpressSpec(),
        MsixSpec(33, 2, 0x1000, 2, 0x2000),
        AerSpec(),
        (RawCapability(0x09, b"\x08vendor"), RawCapability(0x0B, bytes(12), extended=True)),
    )
    parsed = parse_config(bytes(made(caps=caps).data))

    assert [(c.id, c.extended) for c in parsed.capabilities] == [
        (0x01, False),
        (0x05, False),
        (0x10, False),
        (0x11, False),
        (0x09, False),
        (0x01, True),
        (0x0B, True),
    ]
    assert parsed.msi is not None
    assert (parsed.msi.vectors, parsed.msi.is_64bit, parsed.msi.maskable) == (8, True, True)
    assert parsed.msix is not None
    assert (parsed.msix.vectors, parsed.msix.table_bar, parsed.msix.table_offset) == (
        33,
        2,
        0x1000,
    )
    assert parsed.msix.pba_offset == 0x2000


def test_express_has_4096_bytes_and_conventional_pci_256() -> None:
    assert len(made().data) == 256
    assert len(made(caps=Capabilities(express=ExpressSpec())).data) == 4096


@given(st.integers(4, 31), st.booleans())
def test_a_32_bit_bar_is_sized_by_writing_ones(order: int, prefetchable: bool) -> None:
    config = made(BarSpec(1, BarKind.MEM32, 1 << order, prefetchable))

    assert sized(config, 1) == (-(1 << order) & 0xFFFF_FFF0) | (8 if prefetchable else 0)


@given(st.integers(4, 62))
def test_a_64_bit_bar_is_sized_in_two_halves(order: int) -> None:
    config = made(BarSpec(2, BarKind.MEM64, 1 << order))

    both = sized(config, 2) | sized(config, 3) << 32
    assert both == (-(1 << order) & 0xFFFF_FFFF_FFFF_FFF0) | 4


@given(st.integers(2, 16))
def test_a_port_bar_is_sized_by_writing_ones(order: int) -> None:
    config = made(BarSpec(0, BarKind.IO, 1 << order))

    assert sized(config, 0) == (-(1 << order) & 0xFFFF_FFFC) | 1


def test_the_rom_bar_is_sized_and_enabled() -> None:
    config = made()
    config.write(0x30, b"\xff\xff\xff\xff")

    assert int.from_bytes(config.read(0x30, 4), "little") == 0xFFFF_0001


@given(st.binary(min_size=1, max_size=64), st.integers(0, 4095 - 64))
def test_what_is_read_only_stays(data: bytes, offset: int) -> None:
    caps = Capabilities(PowerSpec(), MsiSpec(), ExpressSpec(), MsixSpec(4), AerSpec())
    config = made(BarSpec(0, BarKind.MEM64, 0x1000), caps=caps)
    before = bytes(config.data)
    config.write(offset, data)

    for at in range(4096):
        fixed = 0xFF ^ (config.writable[at] | config.clears[at])
        assert config.data[at] & fixed == before[at] & fixed


def test_errors_are_cleared_by_writing_ones() -> None:
    config = made()
    config.data[0x07] |= 0xF9

    config.write(0x06, b"\x00\x80")

    assert config.data[0x07] == 0x79


def test_a_function_level_reset_is_reported_and_reads_back_as_zero() -> None:
    config = made(caps=Capabilities(express=ExpressSpec(flr=True)))
    control = config.places[0x10, False] + 8

    assert config.write(control, b"\x10\x80") == (Effect.FLR,)
    assert config.data[control + 1] == 0


def test_without_the_capability_there_is_no_function_level_reset() -> None:
    config = made(caps=Capabilities(express=ExpressSpec()))
    control = config.places[0x10, False] + 8

    assert config.write(control, b"\x10\x80") == ()


@pytest.mark.parametrize(("soft_reset", "effects"), [(True, (Effect.POWER_RESET,)), (False, ())])
def test_leaving_d3_resets_unless_the_device_says_no(
    soft_reset: bool, effects: tuple[Effect, ...]
) -> None:
    config = made(caps=Capabilities(power=PowerSpec(soft_reset)))
    control = config.places[0x01, False] + 4

    assert config.write(control, b"\3") == ()
    assert config.write(control, b"\0") == effects


def test_a_reset_takes_everything_back() -> None:
    config = made(BarSpec(0, BarKind.MEM32, 0x1000))
    before = bytes(config.data)
    config.write(0x04, b"\x07\x00")
    config.write(0x10, b"\0\0\0\xfe")
    config.reset()

    assert bytes(config.data) == before


def test_capabilities_go_where_they_are_told() -> None:
    caps = Capabilities(msi=MsiSpec(at=0xA0), express=ExpressSpec(at=0x50))
    parsed = parse_config(bytes(made(caps=caps).data))

    assert [(c.id, c.offset) for c in parsed.capabilities] == [(0x05, 0xA0), (0x10, 0x50)]


@pytest.mark.parametrize(
    "caps",
    [
        Capabilities(msi=MsiSpec(at=0x50), power=PowerSpec(at=0x54)),
        Capabilities(others=(RawCapability(9, bytes(200)),)),
        Capabilities(aer=AerSpec()),
        Capabilities(express=ExpressSpec(), aer=AerSpec(at=0x140)),
    ],
    ids=["overlap", "too-long", "extended-without-express", "first-extended-not-at-0x100"],
)
def test_capabilities_that_do_not_fit_are_told(caps: Capabilities) -> None:
    with pytest.raises(ConfigError):
        made(caps=caps)


@pytest.mark.parametrize(
    "bars",
    [
        (BarSpec(6, BarKind.MEM32, 16),),
        (BarSpec(-1, BarKind.MEM32, 16),),
        (BarSpec(0, BarKind.MEM64, 16), BarSpec(1, BarKind.MEM32, 16)),
        (BarSpec(0, BarKind.MEM32, -1),),
    ],
)
def test_bars_that_cannot_be_are_told(bars: tuple[BarSpec, ...]) -> None:
    with pytest.raises(ConfigError):
        check_bars(bars)


def test_a_64_bit_bar_in_the_last_place_has_its_upper_half_after_it() -> None:
    check_bars((BarSpec(5, BarKind.MEM64, 1 << 40),))
    config = made(BarSpec(5, BarKind.MEM64, 1 << 40))

    assert sized(config, 6) == 0xFFFF_FF00
