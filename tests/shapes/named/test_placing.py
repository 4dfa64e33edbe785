"""Where BARs go without firmware."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.address import AddressRange
from harness.model.expectation import ROM_BAR
from harness.model.pci import Bar, BarKind
from harness.shapes.named.placing import HIGH, LOW, LOW_END, PORTS, PORTS_END, Space

KINDS = st.sampled_from([BarKind.MEM32, BarKind.MEM64, BarKind.IO])


@st.composite
def functions(draw: st.DrawFn) -> tuple[Bar, ...]:
    found = []
    for index in (0, 2, 4):
        kind = draw(KINDS)
        top = 8 if kind is BarKind.IO else 26
        found.append(Bar(index, kind, 1 << draw(st.integers(4, top))))
    return tuple(found)


@given(st.lists(functions(), min_size=1, max_size=8))
def test_nothing_overlaps_and_all_is_aligned(several: list[tuple[Bar, ...]]) -> None:
    space = Space()
    taken: dict[bool, list[AddressRange]] = {True: [], False: []}
    for slot, bars in enumerate(several):
        placed = space.place(slot, bars, rom_size=0x10000)
        for bar in bars:
            address = placed.addresses[bar.index]
            assert address % bar.size == 0
            taken[bar.is_memory].append(AddressRange(address, bar.size))
        taken[True].append(AddressRange(placed.addresses[ROM_BAR], 0x10000))

    for ranges in taken.values():
        assert not [(a, b) for a, b in combinations(ranges, 2) if a.overlaps(b)]
    assert all(r.start >= LOW for r in taken[True])
    assert all(r.start >= PORTS and r.end <= PORTS_END for r in taken[False])


def test_small_bars_have_a_page_for_themselves() -> None:
    placed = Space().place(0, [Bar(0, BarKind.MEM32, 256), Bar(1, BarKind.MEM32, 256)])

    assert {address % 4096 for address in placed.addresses.values()} == {0}
    assert len(set(placed.addresses.values())) == 2


def test_what_does_not_fit_below_goes_above() -> None:
    space = Space(low=LOW_END - 4096)
    placed = space.place(0, [Bar(0, BarKind.MEM64, 1 << 20), Bar(2, BarKind.MEM32, 4096)])

    assert placed.addresses == {0: HIGH, 2: LOW_END - 4096}


def test_full_spaces_are_an_error() -> None:
    with pytest.raises(ValueError, match="below 4 GiB"):
        Space(low=LOW_END).place(0, [Bar(0, BarKind.MEM32, 4096)])
    with pytest.raises(ValueError, match="ports"):
        Space(ports=PORTS_END).place(0, [Bar(0, BarKind.IO, 32)])


def test_wished_addresses_are_taken() -> None:
    placed = Space().place(0, [Bar(0, BarKind.MEM64, 4096)], at={0: 0xFE000000})

    assert placed.addresses == {0: 0xFE000000}


def test_registers_are_written_before_decoding_is_switched_on() -> None:
    bars = [Bar(0, BarKind.MEM64, 4096), Bar(4, BarKind.IO, 32)]
    placed = Space().place(3, bars, rom_size=2048, at={0: 1 << 32, 4: 0xC000, ROM_BAR: LOW})

    written = placed.commands()

    select = "outl 0xcf8 {:#x}".format
    assert written == [
        select(0x80001810), "outl 0xcfc 0x0",
        select(0x80001814), "outl 0xcfc 0x1",
        select(0x80001820), "outl 0xcfc 0xc000",
        select(0x80001830), f"outl 0xcfc {LOW | 1:#x}",
        select(0x80001804), "outw 0xcfc 0x7",
    ]  # fmt: skip
    assert placed.commands(decode=False) == written[:-2]
