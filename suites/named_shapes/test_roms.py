"""Expansion ROMs: their names, how they are read, and one that QEMU leaves out."""

import re
from dataclasses import replace
from typing import Final

import pytest

from harness.device.spec import BarSpec
from harness.lab.shape_host import ShapeMachine
from harness.machine.command import Device
from harness.model.address import AddressRange
from harness.model.expectation import ROM_BAR
from harness.model.memory_map import Kind, MemoryMap
from harness.model.pci import BarKind
from harness.shapes.named.bench import Guest, NamedBench
from harness.shapes.named.catalogue import NAMED, NamedShape
from harness.shapes.named.placing import Placed
from harness.testing import must_fail
from suites.named_shapes.conftest import ServeToQemu

PAGE: Final = 4096


def check_rom_name(found: MemoryMap, owner: str, expected: str) -> None:
    """The ROM of *owner* is one region of that name, and trapped."""
    rows = [row for row in found.memory.owned_by(owner) if "rom" in row.name.lower()]
    assert [(row.name, row.kind) for row in rows] == [(expected, Kind.IO)], rows


@pytest.mark.rule("NM-06", "MAP-13")
def test_rom_behind_a_kernel_has_its_name(plain: ShapeMachine) -> None:
    """The expansion ROM of a host function is ``vfio[BDF].rom``, and i/o."""
    bdf = plain.assigned["igb-pf"].function.bdf

    check_rom_name(plain.map, "igb-pf", f"vfio[{bdf}].rom")


@pytest.mark.rule("NM-06", "MAP-13")
def test_rom_of_a_served_device_has_its_name(bench: NamedBench) -> None:
    """That of a served device is called by the device's name in the same way."""
    check_rom_name(bench.map, "igb-pf", f"vfio[{bench['igb-pf'].prefix}].rom")


@pytest.mark.negative_control("NM-06")
def test_rom_of_an_emulated_device_is_noticed(serve_to_qemu: ServeToQemu) -> None:
    """The check fails on an emulated device: its ROM is QEMU's own file, and called so."""
    card = Device("rtl8139", "card", "pcie.0", "0x1e", {"mac": "52:54:00:00:00:1f"})
    machine = serve_to_qemu(Guest("served", NAMED["nvme"].device()), others=[card])
    machine.qtest.run(Placed(0x1E, (), {ROM_BAR: 0xFD000000}).commands())

    with must_fail():
        check_rom_name(machine.machine.memory_map(), "card", "vfio[card].rom")


def check_read_once(machine: NamedBench, name: str, window: AddressRange, region: int) -> None:
    """However often *window* is read, the device is asked for it the first time only."""
    seated = machine[name]
    first = machine.qtest.read(window.start)
    asked = seated.served.accesses.count(region)
    again = [machine.qtest.read(window.start) for _ in range(5)]
    assert again == [first] * 5
    assert asked and seated.served.accesses.count(region) == asked


@pytest.mark.rule("MAP-13")
def test_rom_is_read_from_the_device_once(serve_to_qemu: ServeToQemu) -> None:
    """The first read of the ROM loads it; later ones are served from QEMU's memory."""
    machine = serve_to_qemu(Guest("card", NAMED["igb-pf"].device()))

    check_read_once(machine, "card", machine["card"].window(ROM_BAR), ROM_BAR)


def check_holds(machine: NamedBench, window: AddressRange, data: bytes) -> None:
    """In *window* the guest reads *data*, from its start on."""
    offsets = range(0, len(data), 4)
    words = [machine.qtest.read(window.start + n).to_bytes(4, "little") for n in offsets]
    assert b"".join(words) == data


ROM: Final = NAMED["igb-pf"].rom[:64]


@pytest.mark.rule("MAP-13")
def test_rom_reads_what_the_device_has(serve_to_qemu: ServeToQemu) -> None:
    """What the guest reads of the ROM is what the device has in it."""
    machine = serve_to_qemu(Guest("card", NAMED["igb-pf"].device()))

    check_holds(machine, machine["card"].window(ROM_BAR), ROM)


@pytest.mark.negative_control("MAP-13")
def test_slow_region_is_noticed(serve_to_qemu: ServeToQemu) -> None:
    """The checks fail on a BAR that is not mapped: each read asks the device, and it is no ROM."""
    slow = BarSpec(0, BarKind.MEM32, PAGE, direct=False)
    shape = replace(NAMED["nvme"], bars=(slow,), msix=None)
    machine = serve_to_qemu(Guest("card", shape.device()))

    with must_fail():
        check_read_once(machine, "card", machine["card"].window(0), 0)
    with must_fail():
        check_holds(machine, machine["card"].window(0), ROM)


HINT: Final = "Specify rombar=1 or romfile to force"
DISABLED: Final = re.compile(
    r"Rom loading for device at \S+ has been disabled due to system instability issues"
)
UNSTABLE: Final = re.compile(
    r"Device at \S+ is known to cause system instability issues during option rom execution"
)


def check_rom_refused(machine: NamedBench, name: str) -> None:
    """QEMU said that it leaves the ROM out and how to force it, and it is out."""
    said = machine.machine.stderr()
    assert DISABLED.search(said) and HINT in said, said
    assert machine[name].config(0x30) == 0
    assert not [row for row in machine.map.memory.owned_by(name) if row.name.endswith(".rom")]


def serve_listed(serve_to_qemu: ServeToQemu, shape: NamedShape, **properties: int) -> NamedBench:
    """Serve the device of the denylist, or another."""
    return serve_to_qemu(Guest("card", shape.device(), properties=properties))


@pytest.mark.rule("QRK-10")
def test_rom_of_the_denylist_is_left_out(serve_to_qemu: ServeToQemu) -> None:
    """The ROM of 14e4:168e is not shown, with a warning and a hint."""
    check_rom_refused(serve_listed(serve_to_qemu, NAMED["bcm57840"]), "card")


@pytest.mark.parametrize(("name", "rombar"), [("bcm57840", 1), ("igb-pf", -1)])
@pytest.mark.negative_control("QRK-10")
def test_shown_rom_is_noticed(serve_to_qemu: ServeToQemu, name: str, rombar: int) -> None:
    """The check fails where the ROM is forced, and on a card that is not listed."""
    machine = serve_listed(serve_to_qemu, NAMED[name], rombar=rombar)

    with must_fail():
        check_rom_refused(machine, "card")


def check_forced(machine: NamedBench) -> None:
    """QEMU warned of the ROM, and shows it."""
    assert UNSTABLE.search(machine.machine.stderr()), machine.machine.stderr()
    check_rom_name(machine.map, "card", f"vfio[{machine['card'].prefix}].rom")


@pytest.mark.rule("QRK-10")
def test_forced_rom_is_warned_of(serve_to_qemu: ServeToQemu) -> None:
    """With ``rombar=1`` it is shown, with another warning."""
    check_forced(serve_listed(serve_to_qemu, NAMED["bcm57840"], rombar=1))


@pytest.mark.negative_control("QRK-10")
def test_missing_warning_is_noticed(serve_to_qemu: ServeToQemu) -> None:
    """The check fails on a card that is not listed."""
    machine = serve_listed(serve_to_qemu, NAMED["igb-pf"], rombar=1)

    with must_fail():
        check_forced(machine)
