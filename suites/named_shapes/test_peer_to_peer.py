"""What of a device's BARs other devices may reach by DMA, and what happens when they may not."""

from dataclasses import replace
from typing import Final

import pytest

from harness.model.address import AddressRange
from harness.shapes.named.bench import Guest, NamedBench
from harness.shapes.named.catalogue import NAMED
from harness.testing import must_fail
from suites.named_shapes.conftest import ServeToQemu

PAGE: Final = 4096


def reachable(machine: NamedBench, name: str) -> set[AddressRange]:
    """Return what device *name* was told that it may reach by DMA."""
    windows = machine[name].device.dma.windows
    return {AddressRange(window.address, window.size) for window in windows}


def check_reaches(machine: NamedBench, name: str, *expected: AddressRange) -> None:
    """Device *name* may reach exactly these parts of the BARs of another."""
    bars = [machine["other"].window(bar.index) for bar in machine["other"].placed.bars]
    found = {r for r in reachable(machine, name) if any(r.overlaps(bar) for bar in bars)}
    assert found == set(expected), found


def with_neighbour(serve_to_qemu: ServeToQemu, other: Guest) -> NamedBench:
    """Serve a QAT VF beside *other*."""
    return serve_to_qemu(Guest("vf", NAMED["qat-vf"].device()), other)


def xl710() -> Guest:
    """Return an XL710 whose table may be mapped: the row behind it begins inside a page."""
    shape = NAMED["xl710-pba-apart"]
    assert shape.msix is not None
    bars = shape.bars[:2]
    msix = replace(shape.msix, mappable=True, pba_bar=0, pba_offset=0)
    return Guest("other", replace(shape, bars=bars, msix=msix).device())


@pytest.mark.rule("MAP-30")
def test_whole_pages_of_a_mapped_bar_are_reachable(serve_to_qemu: ServeToQemu) -> None:
    """Of a row that begins or ends inside a page the whole pages are mapped for others."""
    machine = with_neighbour(serve_to_qemu, xl710())
    first, second = machine["other"].window(0), machine["other"].window(3)

    check_reaches(
        machine,
        "vf",
        AddressRange.of(first.start + PAGE, first.end),
        AddressRange.of(second.start + PAGE, second.end),
    )


@pytest.mark.negative_control("MAP-30")
def test_unmapped_bar_is_noticed(serve_to_qemu: ServeToQemu) -> None:
    """The check fails on a device whose BARs are not mapped: nobody reaches them."""
    slow = tuple(replace(bar, direct=False) for bar in NAMED["qat-pf"].bars)
    machine = with_neighbour(
        serve_to_qemu, Guest("other", replace(NAMED["qat-pf"], bars=slow).device())
    )

    with must_fail():
        check_reaches(machine, "vf", machine["other"].window(0))
