"""Which bytes of a BAR are mapped, on devices that are served to QEMU itself.

What a kernel would say of a region the server says here: areas, or that the table may be mapped.
"""

import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

import pytest

from harness.device.spec import BarSpec, Direct, MsixSpec
from harness.images.qemu_build import QemuBuild
from harness.lab.shape_host import ShapeMachine
from harness.model.address import AddressRange
from harness.model.expectation import Expectation
from harness.model.memory_map import FlatView, Kind, MemoryMap
from harness.model.pci import BarKind
from harness.model.vfio.expectation import expect_vfio
from harness.shapes.named.bench import Guest, NamedBench, function_of, named_bench
from harness.shapes.named.catalogue import NAMED
from harness.testing import must_fail
from suites.named_shapes.conftest import ServeToQemu, SharedEvidence

PAGE: Final = os.sysconf("SC_PAGESIZE")
"""Of the computer that QEMU runs on."""

Mmaps = Mapping[int, tuple[int, int]]
"""By i of ``mmaps[i]``: first byte in the BAR, and one past the last."""


def check_map(expected: Expectation, found: MemoryMap) -> None:
    """Every row of the device is as it must be."""
    assert not expected.compare(found), expected.explain(found)


@pytest.mark.parametrize("name", sorted(set(NAMED) - {"bcm57840"}))
@pytest.mark.rule("NM-01", "MAP-01", "MAP-02", "MAP-38")
def test_map_is_what_the_device_declares(bench: NamedBench, name: str) -> None:
    """The map of a named device follows from what it declares, row by row."""
    check_map(bench[name].expectation(), bench.map)


@pytest.mark.parametrize(("name", "liar"), [("nvme", "nvme-pages"), ("igb-vf", "xl710")])
@pytest.mark.negative_control("NM-01", "MAP-01", "MAP-02", "MAP-38")
def test_device_that_lies_is_noticed(bench: NamedBench, name: str, liar: str) -> None:
    """The comparison fails on a device that is laid out in another way than it declares."""
    seated = bench[liar]
    declared = function_of(NAMED[name].device())
    case = replace(seated.case(), function=replace(declared, bars=seated.case().function.bars))

    expected = expect_vfio(case)
    with must_fail():
        check_map(expected, bench.map)


# -- the deck ----------------------------------------------------------------------------------

DECK: Final = """\
  00000000fe000000-00000000fe7fffff (prio 0, ramd): 0000:03:00.3 BAR 0 mmaps[0]
  00000000fe800000-00000000fe80080f (prio 0, i/o): msix-table
  00000000fe800810-00000000fe800fff (prio 0, i/o): 0000:03:00.3 BAR 3 @0000000000000810
  00000000fe801000-00000000fe807fff (prio 0, ramd): 0000:03:00.3 BAR 3 mmaps[0]
"""
"""What ZH shows of its XL710 ("KVM PCI Passthrough Memory Mapping 2/2"), digits that the slide
drops put back."""


def serve_deck(serve_to_qemu: ServeToQemu, shape: str, *, mappable: bool = False) -> NamedBench:
    """Serve an XL710 where and as the deck has it."""
    truth = NAMED[shape]
    assert truth.msix is not None
    device = replace(truth, msix=replace(truth.msix, mappable=mappable)).device()
    where = {0: 0xFE000000, 3: 0xFE800000, 5: 0xFEA00000}
    at = {bar.index: where[bar.index] for bar in truth.bars}
    return serve_to_qemu(Guest("xl710", device, at=at, socket="0000:03:00.3"))


def check_deck(machine: NamedBench) -> None:
    """QEMU prints of BARs 0 and 3 what the deck shows, to the byte."""
    text = machine.machine.qmp.hmp("info mtree -f").replace("\r", "")
    view = next(v for v in text.split("FlatView #") if ' AS "memory", root: system' in v)
    prefix = machine["xl710"].prefix.removesuffix("0000:03:00.3")
    rows = [line for line in view.splitlines(keepends=True) if re.match(r"  0{8}fe[08]0", line)]
    assert "".join(rows).replace(prefix, "") == DECK


@pytest.mark.rule("MAP-03", "MAP-06", "NM-08")
def test_table_of_the_deck_comes_out(serve_to_qemu: ServeToQemu) -> None:
    """An XL710 whose kernel lets nobody map its table is printed as on the slide."""
    check_deck(serve_deck(serve_to_qemu, "xl710-pba-apart"))


@pytest.mark.parametrize(("shape", "mappable"), [("xl710-pba-apart", True), ("xl710", False)])
@pytest.mark.negative_control("MAP-03", "MAP-06", "NM-08")
def test_other_tables_are_noticed(serve_to_qemu: ServeToQemu, shape: str, mappable: bool) -> None:
    """The check fails where the table may be mapped, and where vfio-user traps the PBA."""
    machine = serve_deck(serve_to_qemu, shape, mappable=mappable)

    with must_fail():
        check_deck(machine)


# -- around the table, and by areas ------------------------------------------------------------

SIZE: Final = 0x10000
AREAS: Final = (AddressRange(0, 0x9000), AddressRange(0xC000, 0x2000))


def device(
    offset: int,
    vectors: int,
    *,
    size: int = SIZE,
    direct: Direct = True,
    mappable: bool = False,
) -> Callable[[str], Guest]:
    """Return what makes a device with a table at *offset* of BAR 0.

    The PBA is in a BAR of its own: its window would split what we look at (MAP-38).
    """
    bars = (
        BarSpec(0, BarKind.MEM64, size, direct=direct),
        BarSpec(5, BarKind.MEM32, 0x1000, direct=True),
    )
    msix = MsixSpec(vectors, 0, offset, 5, 0, mappable=mappable)
    shape = replace(NAMED["nvme"], bars=bars, msix=msix)
    return lambda name: Guest(name, shape.device())


LAYOUTS: Final = {
    "first": device(0, 8),
    "last": device(0xF000, 8),
    "middle": device(0x8000, 8),
    "straddles": device(0x7FF0, 2),
    "covers": device(0, 2048, size=0x8000),
    "mappable": device(0x8000, 8, mappable=True),
    "areas": device(0x8000, 8, direct=AREAS),
    "nothing": device(0x8000, 8, direct=False),
}
MIDDLE: Final[Mmaps] = {0: (0, 0x8000), 1: (0x9000, 0x10000)}
GIVEN: Final[Mmaps] = {n: (area.start, area.end) for n, area in enumerate(AREAS)}


@pytest.fixture(scope="module")
def layouts(bench_build: QemuBuild, shared_evidence: SharedEvidence) -> Iterator[NamedBench]:
    """One machine with all of `LAYOUTS`."""
    guests = [make(name) for name, make in LAYOUTS.items()]
    with named_bench(bench_build, guests, evidence=shared_evidence("layouts")) as machine:
        yield machine


def mmaps(view: FlatView, window: AddressRange) -> Mmaps:
    """Return what is mapped of a BAR; the table, which lies above, does not end a mapping."""
    found: dict[int, tuple[int, int]] = {}
    for row in view.covering(window):
        if row.kind is Kind.RAMD and (match := re.search(r" mmaps\[(\d+)\]$", row.name)):
            first, end = row.range.start - window.start, row.range.end - window.start
            found[int(match[1])] = (found.get(int(match[1]), (first, 0))[0], end)
    return found


def check_mmaps(machine: NamedBench, name: str, expected: Mmaps) -> None:
    """BAR 0 of device *name* is mapped so, and the rest of it is not."""
    window = machine[name].window(0)
    assert mmaps(machine.map.memory, window) == expected
    trapped = [row for row in machine.map.memory.covering(window) if row.kind is not Kind.RAMD]
    assert {row.kind for row in trapped} <= {Kind.IO}, trapped


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("first", {0: (0x1000, 0x10000)}),
        ("last", {0: (0, 0xF000)}),
        ("middle", MIDDLE),
        ("covers", {}),
    ],
)
@pytest.mark.rule("MAP-06")
def test_table_decides_how_many_mappings_there_are(
    layouts: NamedBench, name: str, expected: Mmaps
) -> None:
    """A table at start or end leaves one mapping, in the middle two, over all of it none."""
    check_mmaps(layouts, name, expected)


@pytest.mark.rule("MAP-03")
def test_both_pages_of_a_straddling_table_are_left_out(layouts: NamedBench) -> None:
    """A table over the end of a page keeps two pages from being mapped."""
    check_mmaps(layouts, "straddles", {0: (0, 0x7000), 1: (0x9000, 0x10000)})


@pytest.mark.negative_control("MAP-03", "MAP-06")
def test_mapped_table_page_is_noticed(layouts: NamedBench) -> None:
    """The check fails on a device that says that its table may be mapped."""
    with must_fail():
        check_mmaps(layouts, "mappable", MIDDLE)


@pytest.mark.rule("MAP-07", "MAP-17")
def test_areas_are_taken_as_they_are(layouts: NamedBench) -> None:
    """Of several areas each is one mapping, also where the table is inside one."""
    check_mmaps(layouts, "areas", GIVEN)


@pytest.mark.parametrize("name", ["middle", "mappable", "nothing"])
@pytest.mark.negative_control("MAP-07", "MAP-17")
def test_other_mappings_than_the_areas_are_noticed(layouts: NamedBench, name: str) -> None:
    """The check fails on a BAR without areas: mapped around the table, wholly, or not at all."""
    with must_fail():
        check_mmaps(layouts, name, GIVEN)


@pytest.mark.rule("MAP-04")
def test_mappable_table_leaves_one_mapping(layouts: NamedBench) -> None:
    """With the capability all of the BAR is one mapping, the table on top of it."""
    check_mmaps(layouts, "mappable", {0: (0, SIZE)})


@pytest.mark.negative_control("MAP-04")
def test_two_mappings_are_noticed(layouts: NamedBench) -> None:
    """The check fails on the same device without the capability."""
    with must_fail():
        check_mmaps(layouts, "middle", {0: (0, SIZE)})


# -- the unit ----------------------------------------------------------------------------------


def check_unit(machine: NamedBench, name: str) -> None:
    """Between the mappings of BAR 0 lie exactly the host pages that hold the table."""
    parts = sorted(mmaps(machine.map.memory, machine[name].window(0)).values())
    table = machine[name].case().function.msix
    assert table is not None
    pages = (table.table.start // PAGE * PAGE, -(-table.table.end // PAGE) * PAGE)
    assert [(a[1], b[0]) for a, b in itertools.pairwise(parts)] == [pages]


@pytest.mark.parametrize("name", ["middle", "straddles"])
@pytest.mark.rule("MAP-08")
def test_unit_is_the_page_of_the_host(layouts: NamedBench, name: str) -> None:
    """What is left out around the table is rounded to pages of the system QEMU runs on."""
    check_unit(layouts, name)


@pytest.mark.negative_control("MAP-08")
def test_pages_of_64k_are_noticed(bench: NamedBench) -> None:
    """The check fails on areas that a kernel with pages of 64 KiB made."""
    with must_fail():
        check_unit(bench, "page-64k")


# -- pending bits ------------------------------------------------------------------------------


def check_pba_is_mapped(view: FlatView, pba: AddressRange) -> None:
    """Every row where the pending bits are is mapped."""
    rows = view.covering(pba)
    assert rows and {row.kind for row in rows} == {Kind.RAMD}, rows


@pytest.mark.rule("MAP-09")
def test_pending_bits_are_mapped(plain: ShapeMachine) -> None:
    """Behind a kernel the page of the PBA is mapped like any other."""
    xl710 = plain.assigned["xl710"]

    check_pba_is_mapped(plain.map.memory, xl710.msix.pba.shifted(xl710.window(3).start))


@pytest.mark.negative_control("MAP-09")
def test_trapped_pending_bits_are_noticed(bench: NamedBench) -> None:
    """The check fails over vfio-user, where the PBA is a window (MAP-38)."""
    msix = bench["xl710"].case().function.msix
    assert msix is not None

    with must_fail():
        check_pba_is_mapped(bench.map.memory, msix.pba.shifted(bench["xl710"].window(3).start))
