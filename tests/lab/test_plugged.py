"""What a device in Python declares, what is expected of it, and what was counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from harness.device.device import Device
from harness.device.spec import BarSpec, MsixSpec
from harness.lab.plugged import (
    Plugged,
    Seat,
    Touched,
    declared_function,
    page_table,
    region_facts,
)
from harness.model.address import AddressRange
from harness.model.pci import BarKind, Bdf, PciId
from harness.model.trap import TrapClass
from harness.model.version import KernelVersion, QemuVersion
from harness.model.vfio.mapping import RegionFacts

BDF = Bdf.parse("0000:01:00.0")
PAGE = 0x1000


class Sparse(Device):
    """Two pages of four can be mapped, and a table is in the second of another BAR."""

    id = PciId(0x1234, 0x5AD0)
    bars: tuple[BarSpec, ...] = (
        BarSpec(0, BarKind.MEM32, 4 * PAGE, direct=(AddressRange(PAGE, 2 * PAGE),)),
        BarSpec(1, BarKind.MEM32, 4 * PAGE, direct=True),
        BarSpec(2, BarKind.IO, 0x20),
    )
    msix = MsixSpec(2, table_bar=1, table_offset=PAGE, pba_bar=1, pba_offset=2 * PAGE)


def plugged() -> Plugged:
    """A device in a machine whose BARs are at 0x10000000, 0x20000000, and port 0x1000."""
    machine = SimpleNamespace(
        bar_addresses=lambda name: {0: 0x1000_0000, 1: 0x2000_0000, 2: 0x1000},
        function_of=lambda name: SimpleNamespace(qdev_id="sparse", bdf=BDF),
        spec=SimpleNamespace(accel="tcg"),
    )
    stage = SimpleNamespace(machine=machine, kernel=KernelVersion.parse("6.12.1"))
    served = SimpleNamespace(socket="/run/x/device.sock")
    return Plugged(
        Seat("sparse", Sparse(), "rp0"), cast(Any, served), cast(Any, stage),
        QemuVersion.parse("11.1.3"),
    )  # fmt: skip


def test_a_declaration_becomes_a_function_without_asking_anybody() -> None:
    device = Sparse()

    function = declared_function(device, BDF)

    assert (function.bdf, function.id) == (BDF, PciId(0x1234, 0x5AD0))
    assert [bar.index for bar in function.bars] == [0, 1, 2]
    assert function.msix is not None
    assert function.msix.table == AddressRange(PAGE, 32)
    assert function.msix.offset == device.config.places[0x11, False]


def test_a_device_without_msix_declares_none() -> None:
    assert declared_function(Device(), BDF).msix is None


def test_what_can_be_mapped_is_said_for_each_bar() -> None:
    assert region_facts(Sparse()) == {
        0: RegionFacts(mappable=True, sparse=(AddressRange(PAGE, 2 * PAGE),)),
        1: RegionFacts(mappable=True),
        2: RegionFacts(mappable=False),
    }


def test_every_page_is_touched_and_every_row_in_it() -> None:
    device = plugged()
    expected = device.expectation()

    places = device.places(expected, 1)

    touched = sorted(offset for offsets in places.values() for offset in offsets)
    assert {offset // PAGE for offset in touched} == {0, 1, 2, 3}
    assert places[TrapClass.TABLE] == (PAGE,)
    assert PAGE + 32 in places[TrapClass.SLOW], "behind the table"
    assert 2 * PAGE in places[TrapClass.SLOW], "the pending bits are asked of the device"
    assert 2 * PAGE + 8 in places[TrapClass.RAM_DEVICE], "behind them"
    assert {0, PAGE - 4, 3 * PAGE, 4 * PAGE - 4} <= set(places[TrapClass.DIRECT])


def test_sparse_areas_and_ports_are_told_apart() -> None:
    device = plugged()
    expected = device.expectation()

    assert {offset // PAGE for offset in device.places(expected, 0)[TrapClass.DIRECT]} == {1, 2}
    assert {offset // PAGE for offset in device.places(expected, 0)[TrapClass.SLOW]} == {0, 3}
    assert device.places(expected, 2) == {TrapClass.SLOW: (0, 8, 0xC, 16, 24, 28)}


def test_another_declaration_expects_another_map() -> None:
    class Closed(Sparse):
        bars = tuple(BarSpec(bar.index, bar.kind, bar.size) for bar in Sparse.bars)

    device = plugged()

    assert TrapClass.DIRECT not in device.places(device.expectation(Closed()), 0)


def test_counts_say_who_served_and_read_as_a_sentence() -> None:
    touched = Touched(
        "read sparse BAR 0+0x0, 0x8",
        50,
        {0: 50, 8: 50},
        0,
        {"vfio_region_read": 100},
        {0: 1, 8: 2},
    )

    assert touched.served_by is TrapClass.SLOW
    assert touched.explain() == (
        "read sparse BAR 0+0x0, 0x8, 50 times each: messages to the device 0x0: 50, 0x8: 50"
        " (of other places 0); trace events of QEMU: vfio_region_read 100"
    )


def test_predictions_and_counts_are_shown_side_by_side() -> None:
    slow = Touched("", 50, {0x1000: 50}, 0, {}, {0x1000: 0xBA00_1000})
    direct = Touched("", 50, {0: 0, 0x3000: 0}, 0, {}, {0: 0xBA00_0000, 0x3000: 0xBA00_3000})

    table = page_table([(TrapClass.SLOW, slow), (TrapClass.DIRECT, direct)])

    assert table.splitlines() == [
        "  offset  predicted    accesses  messages  read",
        "     0x0  direct             50         0  0xba000000",
        "  0x1000  slow               50        50  0xba001000",
        "  0x3000  direct             50         0  0xba003000",
    ]
