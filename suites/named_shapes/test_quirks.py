"""Windows that QEMU's vfio-pci lays over BARs of particular devices.

The device is a shape; Linux's vfio-pci and QEMU are real. QEMU's vfio-user-pci sets up no such
window (QRK-11), so these shapes go through a kernel.
"""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from harness.lab.shape_host import ShapeAssigned, ShapeMachine
from harness.model.address import AddressRange
from harness.model.expectation import Space
from harness.model.memory_map import Kind, MemoryMap
from harness.model.trap import TrapClass
from harness.model.vfio.expectation import expect_vfio
from harness.model.vfio.mapping import VfioOptions
from harness.shapes.named.bench import NamedBench
from harness.testing import must_fail
from suites.named_shapes.test_mapping import check_map

Window = tuple[int, int, str]
"""Offset in the BAR, size, name."""

NVIDIA_88000: Sequence[Window] = [(0x88000, 0x1000, "vfio-nvidia-bar0-88000-mirror-quirk")]
NVIDIA_1800: Sequence[Window] = [(0x1800, 0x100, "vfio-nvidia-bar0-1800-mirror-quirk")]
NVIDIA_PORTS: Sequence[Window] = [
    (0, 4, "vfio-nvidia-bar5-master-quirk"),
    (4, 4, "vfio-nvidia-bar5-enable-quirk"),
]
"""The other two are disabled until the guest opens them, see `NVIDIA_OPEN`."""
NVIDIA_OPEN: Sequence[Window] = [
    *NVIDIA_PORTS,
    (8, 4, "vfio-nvidia-bar5-window-address-quirk"),
    (12, 4, "vfio-nvidia-bar5-window-data-quirk"),
]
ATI_4000: Sequence[Window] = [(0x4000, 0x100, "vfio-ati-bar2-4000-quirk")]
ATI_PORTS: Sequence[Window] = [
    (0, 4, "vfio-ati-bar4-window-address-quirk"),
    (4, 4, "vfio-ati-bar4-window-data-quirk"),
]
RTL8168: Sequence[Window] = [
    (0x70, 4, "vfio-rtl8168-window-data-quirk"),
    (0x74, 4, "vfio-rtl8168-window-address-quirk"),
]
IGD_9: Sequence[Window] = [(0x1080C0, 4, "vfio-igd-bdsm-quirk")]
IGD_12_GMS: Sequence[Window] = [
    (0x108040, 2, "vfio-igd-ggc-quirk"),
    (0x1080C0, 8, "vfio-igd-bdsm-quirk"),
]
GGC: Window = (0x108040, 2, "vfio-igd-ggc-quirk")


def space_of(assigned: ShapeAssigned, bar: int) -> Space:
    """Return where BAR *bar* decodes."""
    return Space.MEMORY if assigned.function.bar(bar).is_memory else Space.PORTS


def windows_in(assigned: ShapeAssigned, bar: int, found: MemoryMap) -> list[Window]:
    """Return the rows of quirks in BAR *bar*."""
    view = found.memory if space_of(assigned, bar) is Space.MEMORY else found.ports
    window = assigned.window(bar)
    return [
        (row.range.start - window.start, row.range.size, row.name)
        for row in view.covering(window)
        if row.name.endswith("-quirk") and row.kind is Kind.IO
    ]


def check_windows(
    machine: ShapeMachine,
    name: str,
    bar: int,
    expected: Sequence[Window],
    *,
    found: MemoryMap | None = None,
) -> None:
    """BAR *bar* has these windows and no other, in *found* or in the map that was read first."""
    rows = machine.map if found is None else found
    assert windows_in(machine.assigned[name], bar, rows) == list(expected)


@pytest.mark.parametrize(
    ("name", "bar", "expected"),
    [
        pytest.param("nvidia", 0, NVIDIA_88000, marks=pytest.mark.rule("QRK-01")),
        pytest.param("rtl8168", 2, RTL8168, marks=pytest.mark.rule("QRK-06")),
        pytest.param("ati", 2, [], marks=pytest.mark.rule("QRK-05")),
        pytest.param("nvidia-3d", 0, [], marks=pytest.mark.rule("QRK-11")),
        pytest.param("xl710", 0, [], marks=pytest.mark.rule("QRK-11")),
        pytest.param("qat-vf", 0, [], marks=pytest.mark.rule("QRK-11")),
    ],
)
def test_windows_of_a_device(
    plain: ShapeMachine, name: str, bar: int, expected: Sequence[Window]
) -> None:
    """A device has exactly the windows that its ids call for."""
    check_windows(plain, name, bar, expected)


@pytest.mark.parametrize("name", ["nvidia", "nvidia-3d", "ati", "rtl8168", "igd-9", "xl710"])
@pytest.mark.rule("QRK-01", "QRK-06", "QRK-08", "QRK-11", "NM-01", "MT-18")
def test_map_is_what_ids_and_layout_imply(plain: ShapeMachine, name: str) -> None:
    """The whole map of a device with windows is the expected one."""
    check_map(plain.assigned[name].expectation(), plain.map)


@pytest.mark.parametrize("name", ["nvidia-vga", "nvidia-off", "rtl8168-moved", "igd-12"])
@pytest.mark.rule("QRK-01", "QRK-02", "QRK-03", "QRK-06", "QRK-08", "QRK-09", "MAP-20")
def test_map_with_options_is_the_expected_one(special: ShapeMachine, name: str) -> None:
    """With x-vga, without GeForce quirks, relocated, with x-igd-gms: the map is as it must be."""
    check_map(special.assigned[name].expectation(), special.map)


@pytest.mark.parametrize(("name", "other"), [("nvidia-vga", "nvidia-off"), ("rtl8168-moved", "")])
@pytest.mark.negative_control("QRK-02", "QRK-03", "QRK-09", "MAP-20")
def test_map_without_the_option_is_noticed(special: ShapeMachine, name: str, other: str) -> None:
    """The comparison fails for what another option, or none, would lead to."""
    options = special.assigned[other].options if other else VfioOptions()
    expected = expect_vfio(replace(special.assigned[name].case(), options=options))

    with must_fail():
        check_map(expected, special.map)


@pytest.mark.rule("QRK-08")
def test_igd_has_its_stolen_memory_window(plain: ShapeMachine) -> None:
    """Integrated graphics of generation 9 have a window of 4 bytes over BDSM.

    And one over GGC in 10.0, which shows it always; from 10.1 on only with x-igd-gms.
    """
    shows_ggc = not plain.host.qemu.version.has(10, 1)
    check_windows(plain, "igd-9", 0, [GGC, *IGD_9] if shows_ggc else IGD_9)


@pytest.mark.rule("QRK-08")
def test_igd_with_gms_has_both_windows(special: ShapeMachine) -> None:
    """With ``x-igd-gms`` the GGC window is there, and from generation 11 BDSM has 8 bytes."""
    check_windows(special, "igd-12", 0, IGD_12_GMS)


@pytest.mark.parametrize(
    ("bar", "expected"),
    [
        pytest.param(0, [*NVIDIA_1800, *NVIDIA_88000], marks=pytest.mark.rule("QRK-01", "QRK-02")),
        pytest.param(5, NVIDIA_PORTS, marks=pytest.mark.rule("QRK-03")),
    ],
)
def test_vga_adds_windows_to_nvidia(
    special: ShapeMachine, bar: int, expected: Sequence[Window]
) -> None:
    """With x-vga an NVIDIA card has a window at 0x1800, and those of its ports."""
    check_windows(special, "nvidia-vga", bar, expected)


@pytest.mark.parametrize(("bar", "expected"), [(2, ATI_4000), (4, ATI_PORTS)])
@pytest.mark.rule("QRK-05")
def test_vga_adds_windows_to_ati(
    ati_vga: ShapeMachine, bar: int, expected: Sequence[Window]
) -> None:
    """With x-vga an ATI card has a window at 0x4000 of BAR 2, and those of its ports."""
    check_windows(ati_vga, "ati-vga", bar, expected)


@pytest.mark.rule("QRK-09")
def test_geforce_quirks_can_be_left_out(special: ShapeMachine) -> None:
    """With ``x-no-geforce-quirks=on`` an NVIDIA card has no window at all."""
    check_windows(special, "nvidia-off", 0, [])


@pytest.mark.parametrize(
    ("name", "bar", "expected"),
    [
        pytest.param("nvidia-3d", 0, NVIDIA_88000, marks=pytest.mark.negative_control("QRK-01")),
        pytest.param("nvidia", 0, NVIDIA_1800, marks=pytest.mark.negative_control("QRK-02")),
        pytest.param("nvidia", 5, NVIDIA_PORTS, marks=pytest.mark.negative_control("QRK-03")),
        pytest.param("ati", 2, ATI_4000, marks=pytest.mark.negative_control("QRK-05")),
        pytest.param("ati", 4, ATI_PORTS, marks=pytest.mark.negative_control("QRK-05")),
        pytest.param("xl710", 3, RTL8168, marks=pytest.mark.negative_control("QRK-06")),
        pytest.param("igd-9", 0, IGD_12_GMS, marks=pytest.mark.negative_control("QRK-08")),
        pytest.param("nvidia", 0, [], marks=pytest.mark.negative_control("QRK-09", "QRK-11")),
    ],
)
def test_other_windows_are_noticed(
    plain: ShapeMachine, name: str, bar: int, expected: Sequence[Window]
) -> None:
    """The check fails on a device of other ids, or without the option."""
    with must_fail():
        check_windows(plain, name, bar, expected)


# -- the ports of an NVIDIA card open a window ------------------------------------------------


def open_window(machine: ShapeMachine) -> None:
    """Write to BAR 5 what opens the configuration window: its two switches (QEMU's own)."""
    base = machine.assigned["nvidia-vga"].window(5).start
    machine.qtest.out(base, 1)
    machine.qtest.out(base + 4, 1)


def close_window(machine: ShapeMachine) -> None:
    """Undo `open_window`."""
    base = machine.assigned["nvidia-vga"].window(5).start
    machine.qtest.out(base + 4, 0)
    machine.qtest.out(base, 0)


@pytest.mark.rule("QRK-03")
@pytest.mark.negative_control("QRK-03")
def test_switches_open_the_other_two_windows(special: ShapeMachine) -> None:
    """Master and enable switched on, address and data windows show behind them."""
    open_window(special)
    try:
        found = special.machine.memory_map()
    finally:
        close_window(special)

    check_windows(special, "nvidia-vga", 5, NVIDIA_OPEN, found=found)
    with must_fail():
        check_windows(special, "nvidia-vga", 5, NVIDIA_OPEN)


# -- legacy VGA ranges -------------------------------------------------------------------------

VGA_MEMORY = AddressRange.of(0xA0000, 0xC0000)
VGA_PORTS = AddressRange.of(0x3B0, 0x3E0)
ON_PORTS = {
    "vfio-vga-io@0x3b0": AddressRange.of(0x3B0, 0x3BC),
    "vfio-vga-io@0x3c0": AddressRange.of(0x3C0, 0x3E0),
}


def check_vga(machine: ShapeMachine, name: str) -> None:
    """The legacy ranges are the device's: trapped, and called as they are."""
    memory = machine.map.memory.covering(VGA_MEMORY)
    assert [(r.name, r.kind, r.range) for r in memory] == [
        ("vfio-vga-mmio@0xa0000", Kind.IO, VGA_MEMORY)
    ]
    ports = [r for r in machine.map.ports.covering(VGA_PORTS) if r.name in ON_PORTS]
    assert {r.name for r in ports} == set(ON_PORTS)
    assert all(ON_PORTS[r.name].covers(r.range) and r.kind is Kind.IO for r in ports), ports
    assert {r.owner.value for r in (*memory, *ports) if r.owner} == {name}


@pytest.mark.rule("NM-07", "MAP-14")
def test_vga_ranges_are_trapped(special: ShapeMachine) -> None:
    """With x-vga the legacy ranges are three regions of the device, none of them mapped."""
    check_vga(special, "nvidia-vga")


@pytest.mark.negative_control("NM-07", "MAP-14")
def test_missing_vga_ranges_are_noticed(plain: ShapeMachine) -> None:
    """The check fails on the card without x-vga."""
    with must_fail():
        check_vga(plain, "nvidia")


def check_port_quirks(machine: ShapeMachine, expected: dict[str, AddressRange]) -> None:
    """The quirks among the legacy ports are these."""
    found = machine.map.ports.covering(VGA_PORTS)
    assert {r.name: r.range for r in found if r.name.endswith("-quirk")} == expected


NVIDIA_3D0 = {
    "vfio-nvidia-3d0-quirk": AddressRange(0x3D0, 2),
    "vfio-nvidia-3d4-quirk": AddressRange(0x3D4, 2),
}
ATI_3C3 = {"vfio-ati-3c3-quirk": AddressRange(0x3C3, 1)}


@pytest.mark.rule("QRK-04")
def test_nvidia_has_quirks_among_the_legacy_ports(special: ShapeMachine) -> None:
    """With x-vga, ports 3d0 and 3d4 of an NVIDIA card are quirks."""
    check_port_quirks(special, NVIDIA_3D0)


@pytest.mark.rule("QRK-05")
def test_ati_has_a_quirk_among_the_legacy_ports(ati_vga: ShapeMachine) -> None:
    """With x-vga, port 3c3 of an ATI card is a quirk."""
    check_port_quirks(ati_vga, ATI_3C3)


@pytest.mark.parametrize(
    "expected",
    [
        pytest.param(NVIDIA_3D0, marks=pytest.mark.negative_control("QRK-04")),
        pytest.param(ATI_3C3, marks=pytest.mark.negative_control("QRK-05")),
    ],
)
def test_missing_port_quirks_are_noticed(
    plain: ShapeMachine, expected: dict[str, AddressRange]
) -> None:
    """The check fails on the same cards without x-vga."""
    with must_fail():
        check_port_quirks(plain, expected)


# -- what they cost ----------------------------------------------------------------------------


def check_traps_in_qemu(machine: ShapeMachine, name: str, bar: int, offset: int) -> None:
    """Each read at *offset* exits, and is served by QEMU's own mapping."""
    address = machine.assigned[name].window(bar).start + offset
    reads = machine.reads(f"{name} BAR {bar}+{offset:#x}", address)
    assert reads.served_by is TrapClass.RAM_DEVICE, reads.explain()


@pytest.mark.parametrize("offset", [0x60, 0x80, 0xFFC])
@pytest.mark.rule("QRK-07", "MAP-05")
def test_window_makes_its_page_trap(plain: ShapeMachine, offset: int) -> None:
    """Beside a window smaller than a page every access of that page exits."""
    check_traps_in_qemu(plain, "rtl8168", 2, offset)


@pytest.mark.parametrize(("name", "offset"), [("nvidia", 0x87FFC), ("nvidia", 0x89000)])
@pytest.mark.negative_control("QRK-07", "MAP-05")
def test_direct_pages_are_noticed(plain: ShapeMachine, name: str, offset: int) -> None:
    """The check fails beside a window of whole pages: those are read without an exit."""
    with must_fail():
        check_traps_in_qemu(plain, name, 0, offset)


def check_quirk_traces(machine: ShapeMachine, where: str, address: int, event: str) -> None:
    """Reads of a window are served by it, and leave its trace."""
    reads = machine.reads(where, address)
    assert reads.served_by is TrapClass.QUIRK, reads.explain()
    assert reads.events.get(event) == reads.count, reads.explain()


@pytest.mark.rule("QRK-12", "QRK-01")
def test_reads_of_a_window_are_traced(plain: ShapeMachine) -> None:
    """Reads of NVIDIA's mirror arrive at the quirk and leave ``vfio_quirk_*`` traces."""
    start = plain.assigned["nvidia"].window(0).start

    check_quirk_traces(plain, "nvidia", start + 0x88000, "vfio_quirk_generic_mirror_read")


@pytest.mark.negative_control("QRK-12")
def test_reads_beside_a_window_are_noticed(plain: ShapeMachine) -> None:
    """The check fails beside the window."""
    start = plain.assigned["rtl8168"].window(2).start

    with must_fail():
        check_quirk_traces(plain, "rtl8168", start, "vfio_quirk_generic_mirror_read")


# -- writes that move to the kernel ------------------------------------------------------------

MSI_ACK = 0x88704
"""Where NVIDIA's driver acknowledges an interrupt, in BAR 0."""
IOEVENTFD = "vfio_ioeventfd_init"


def moved(machine: ShapeMachine, name: str, values: Sequence[int]) -> int:
    """Write *values* into the mirror; return how many of the writes got an eventfd."""
    address = machine.assigned[name].window(0).start + MSI_ACK
    with machine.machine.tracing(IOEVENTFD) as window:
        for value in values:
            machine.qtest.write(address, value)
    return window.count(IOEVENTFD)


def check_moves(count: int) -> None:
    """One write, of one value, was given an eventfd."""
    assert count == 1, f"{count} eventfds"


def check_stays(count: int) -> None:
    """No write was given one."""
    assert count == 0, f"{count} eventfds"


@pytest.mark.full
@pytest.mark.rule("TRP-13")
@pytest.mark.negative_control("TRP-13")
def test_equal_writes_move_to_the_kernel(plain: ShapeMachine) -> None:
    """The tenth equal write to NVIDIA's mirror gets an eventfd, so that later ones pass by QEMU.

    One more write of QEMU's own, which no eventfd takes, would be its end:
    docs/findings/nvidia-eventfd-twice.md.
    """
    count = moved(plain, "nvidia", [0x11] * 10)

    check_moves(count)
    with must_fail():
        check_stays(count)


@pytest.mark.full
@pytest.mark.parametrize("values", [[0x22] * 9, [0x33, 0x44] * 10])
@pytest.mark.negative_control("TRP-13")
def test_too_few_equal_writes_are_noticed(plain: ShapeMachine, values: Sequence[int]) -> None:
    """Nine equal writes, or twenty that differ, stay with the quirk."""
    with must_fail():
        check_moves(moved(plain, "nvidia", values))


@pytest.mark.full
@pytest.mark.rule("TRP-13")
def test_writes_stay_where_they_must(special: ShapeMachine) -> None:
    """With x-no-kvm-ioeventfd all of them stay with the quirk."""
    check_stays(moved(special, "nvidia-vga", [0x55] * 30))


# -- vfio-user-pci has none --------------------------------------------------------------------


def check_no_window(found: MemoryMap, name: str) -> None:
    """No row of the device is called a quirk."""
    rows = (*found.memory.owned_by(name), *found.ports.owned_by(name))
    quirks = [row.name for row in rows if row.name.endswith("-quirk")]
    assert rows and not quirks, quirks


@pytest.mark.parametrize("name", ["nvidia", "ati", "rtl8168", "igd-9"])
@pytest.mark.rule("QRK-11")
def test_vfio_user_sets_up_no_window(bench: NamedBench, name: str) -> None:
    """Served over vfio-user, a device has no window whatever its ids are."""
    check_no_window(bench.map, name)


@pytest.mark.parametrize("name", ["nvidia", "rtl8168", "igd-9"])
@pytest.mark.negative_control("QRK-11")
def test_windows_behind_a_kernel_are_noticed(plain: ShapeMachine, name: str) -> None:
    """The check fails on the same devices behind a kernel."""
    with must_fail():
        check_no_window(plain.map, name)
