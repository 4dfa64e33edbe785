"""A strategy of assigned functions, shared by the tests of the oracle."""

import pytest
from hypothesis import assume
from hypothesis import strategies as st

from harness.model.address import AddressRange
from harness.model.pci import Bar, BarKind, Bdf, MsixCapability, PciFunction, PciId
from harness.model.version import KernelVersion, QemuVersion
from harness.model.vfio.case import VfioCase
from harness.model.vfio.mapping import (
    RegionFacts,
    VfioOptions,
    VfioRefused,
    VfioState,
    guest_layout,
)

_DEVICES = ("1b36:0010", "10de:1b80", "1002:6819", "10ec:8168", "8086:4680", "8086:1912")


@st.composite
def _bars(draw: st.DrawFn) -> tuple[Bar, ...]:
    bars: list[Bar] = []
    index = draw(st.integers(0, 1))
    while index < 6:
        kind = draw(st.sampled_from(BarKind))
        bits = st.integers(4, 8) if kind is BarKind.IO else st.integers(7, 21)
        bars.append(Bar(index, kind, 1 << draw(bits)))
        index += 1 + (kind is BarKind.MEM64) + draw(st.integers(0, 2))
    return tuple(bar for bar in bars if bar.index < 5 or bar.kind is not BarKind.MEM64)


@st.composite
def _msix(draw: st.DrawFn, bars: tuple[Bar, ...]) -> MsixCapability | None:
    roomy = [bar for bar in bars if bar.is_memory and bar.size >= 0x100]
    wanted: bool = draw(st.booleans())
    if not roomy or not wanted:
        return None
    table, pba = draw(st.sampled_from(roomy)), draw(st.sampled_from(roomy))
    vectors = draw(st.integers(1, min(2048, table.size // 32)))
    offset = draw(st.integers(0, (table.size - 16 * vectors) // 16)) * 8
    bits = 8 * ((vectors + 63) // 64)
    assume(bits <= pba.size // 4)
    start = offset + 16 * vectors if pba == table else 0
    assume(start + bits <= pba.size)
    return MsixCapability(0x40, vectors, table.index, offset, pba.index, start)


@st.composite
def _cases(draw: st.DrawFn) -> VfioCase:
    bars = draw(_bars())
    function = PciFunction(
        bdf=Bdf.parse("0000:01:00.0"),
        id=PciId.parse(draw(st.sampled_from(_DEVICES))),
        class_code=draw(st.sampled_from([0x010802, 0x030000])),
        bars=bars,
        msix=draw(_msix(bars)),
        rom_size=0x10000,
    )
    qemu = draw(
        st.sampled_from(["2.9.1", "2.11.2", "2.12.0", "4.0.1", "4.1.0", "9.2.0", "10.0.2"])
    )
    version = QemuVersion.parse(qemu)
    page = draw(st.sampled_from([4096, 4096, 0x10000]))
    targets = st.none() | st.integers(0, 5)
    options = VfioOptions(
        no_mmap=draw(st.integers(0, 5)) == 0,
        msix_relocation=draw(targets) if version.has(2, 12) else None,
        vga=draw(st.booleans()),
    )
    try:
        layout = guest_layout(function, options, page=page, qemu=version)
    except VfioRefused:
        assume(False)
        raise
    addresses: dict[int, int] = {}
    free = {True: 0xE000_0000, False: 0x1000}
    for bar in layout.bars:
        memory = bar.kind is not BarKind.IO
        loose = draw(st.sampled_from([bar.size, 0x10000 if memory else bar.size]))
        step = max(bar.size, loose)
        addresses[bar.index] = -(-free[memory] // step) * step
        free[memory] = addresses[bar.index] + bar.size
    shown = draw(st.sets(st.sampled_from(sorted(addresses)))) if addresses else set()
    regions: dict[int, RegionFacts] = {}
    big = [bar for bar in bars if bar.is_memory and bar.size >= 4 * page]
    special: bool = draw(st.booleans())
    if big and special:
        areas = (AddressRange(page, page), AddressRange(3 * page, page))
        regions[big[0].index] = draw(
            st.sampled_from([RegionFacts(False), RegionFacts(True, sparse=areas)])
        )
    return VfioCase(
        function=function,
        kernel=KernelVersion.parse(draw(st.sampled_from(["4.4", "4.7", "4.15", "4.16", "6.12"]))),
        qemu=version,
        bar_addresses={bar: at for bar, at in addresses.items() if bar in shown},
        kvm=draw(st.booleans()),
        page=page,
        options=options,
        state=VfioState(draw(st.integers(0, 5)) == 0, draw(st.booleans()), draw(st.booleans())),
        subpage_reserved=tuple(bar.index for bar in bars) if draw(st.booleans()) else (),
        regions=regions,
        rom_address=0x8000_0000 if draw(st.booleans()) else None,
    )


@pytest.fixture(scope="session")
def vfio_cases() -> st.SearchStrategy[VfioCase]:
    """Functions with any BARs, MSI-X, quirks, versions, options and addresses."""
    return _cases()
