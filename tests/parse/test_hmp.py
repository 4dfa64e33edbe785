"""Texts of the human monitor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ParseError
from harness.model.pci import Bdf, PciId
from harness.model.pci_listing import QueryPciBar, QueryPciBridge
from harness.parse.hmp import (
    HostForward,
    forwarded_port,
    parse_examine,
    parse_info_pci,
    parse_info_qtree,
    parse_info_usernet,
    qtree_devices,
)

INFO_PCI = """\
  Bus  0, device   0, function 0:
    Host bridge: PCI device 8086:29c0
      PCI subsystem 1af4:1100
      id ""
  Bus  0, device   2, function 0:
    PCI bridge: PCI device 1b36:000c
      IRQ 10, pin A
      BUS 0.
      secondary bus 1.
      subordinate bus 1.
      IO range [0xf000, 0x0fff]
      memory range [0xfe800000, 0xfe9fffff]
      prefetchable memory range [0xfff00000, 0x000fffff]
      BAR0: 32 bit memory at 0xfebd1000 [0xfebd1fff]
      id "rp1"
  Bus  1, device   0, function 0:
    Class 0264: PCI device 1b36:0010
      PCI subsystem 1af4:1100
      IRQ 11, pin A
      BAR0: 64 bit memory at 0xfe800000 [0xfe803fff]
      BAR6: 32 bit memory (not mapped)
      id "nvme0"
  Bus  0, device  31, function 2:
    SATA controller: PCI device 8086:2922
      BAR4: I/O at 0xc040 [0xc05f]
      BAR5: 32 bit memory at 0xfebd2000 [0xfebd2fff]
      BAR2: 64 bit prefetchable memory at 0xffffffffffffffff [0x0000000000003ffe].
      id ""
"""


def test_info_pci_is_read_with_either_line_end() -> None:
    functions = parse_info_pci(INFO_PCI)

    assert functions == parse_info_pci(INFO_PCI.replace("\n", "\r\n"))
    assert [str(f.bdf) for f in functions] == [
        "0000:00:00.0",
        "0000:00:02.0",
        "0000:01:00.0",
        "0000:00:1f.2",
    ]


def test_info_pci_function_has_ids_class_and_bars() -> None:
    _, port, nvme, sata = parse_info_pci(INFO_PCI)

    assert port.bridge == QueryPciBridge(0, 1, 1)
    assert port.class_words == "PCI bridge"
    assert nvme.id == PciId(0x1B36, 0x0010)
    assert nvme.subsystem == PciId(0x1AF4, 0x1100)
    assert (nvme.qdev_id, nvme.class_code, nvme.irq, nvme.pin) == ("nvme0", 0x0108, 11, 1)
    assert nvme.bar(0) == QueryPciBar(0, True, 0xFE800000, 0x4000, is_64=True)
    assert nvme.bar(6) == QueryPciBar(6, True)
    assert sata.bar(4) == QueryPciBar(4, False, 0xC040, 0x20)
    assert sata.bdf == Bdf(0, 0, 31, 2)


def test_unmapped_bar_of_old_versions_has_no_address() -> None:
    bar = parse_info_pci(INFO_PCI)[3].bar(2)

    assert (bar.address, bar.size, bar.prefetchable) == (None, 0x4000, True)
    with pytest.raises(ValueError, match="does not decode"):
        _ = bar.range


def test_function_without_ids_is_an_error() -> None:
    with pytest.raises(ParseError):
        parse_info_pci("  Bus  0, device   0, function 0:\n")


def test_words_of_every_width() -> None:
    dump = parse_examine(
        "00000000fed90000: 0x00000010 0x00000000 0x222f0686 0x00d2008c\r\n"
        "00000000fed90010: 0x00f00f5a\r\n"
    )
    wide = parse_examine("00000000fed90008: 0x00d2008c222f0686 0x0000000000f00f5a\n")

    assert (dump.width, len(dump.words), dump.at(0xFED90010)) == (4, 5, 0xF00F5A)
    assert (wide.width, wide.at(0xFED90008)) == (8, 0x00D2008C222F0686)
    assert parse_examine("0000000000000000: 0x7f 0x45\n").words == (0x7F, 0x45)
    for address in (0xFED90014, 0xFED90001, 0xFED8FFFC):
        with pytest.raises(KeyError):
            dump.at(address)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0000000000001000: Cannot access memory\n",
        "0000000000001000: 0x00000001\n0000000000001020: 0x00000002\n",
    ],
)
def test_dump_without_words_is_an_error(text: str) -> None:
    with pytest.raises(ParseError):
        parse_examine(text)


@given(
    st.sampled_from([(1, 8), (2, 16), (4, 16), (8, 16)]),
    st.integers(0, 2**40),
    st.lists(st.integers(0, 255), min_size=1, max_size=40),
)
def test_what_qemu_prints_is_read_back(
    shape: tuple[int, int], start: int, words: list[int]
) -> None:
    width, line = shape
    per_line = line // width
    text = "".join(
        f"{start + at * width:016x}:"
        + "".join(f" 0x{word:0{2 * width}x}" for word in words[at : at + per_line])
        + "\n"
        for at in range(0, len(words), per_line)
    )

    dump = parse_examine(text)

    assert (dump.address, dump.width, dump.words) == (start, width, tuple(words))


USERNET = (
    "Hub -1 (net0):\r\n"
    "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
    "  TCP[ESTABLISHED]   14       127.0.0.1 33465       10.0.2.15    22     0     0\r\n"
    "  TCP[HOST_FORWARD]  13       127.0.0.1 33465       10.0.2.15    22     0     0\r\n"
    "  UDP[HOST_FORWARD]  15               * 40000       10.0.2.15    53     0     0\r\n"
    "  UDP[22 sec]        16       10.0.2.15 40001     192.168.1.1    53     0     0\r\n"
    "  ICMP[3 sec]        17       10.0.2.15     -     192.168.1.1     -     0     0\r\n"
    "Hub -1 (net1):\r\n"
    "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
    "  TCP[HOST_FORWARD]  18       127.0.0.1 45123       10.0.2.15    22     0     0\r\n"
)


def test_forwards_are_listed_and_connections_are_not() -> None:
    assert parse_info_usernet(USERNET) == (
        HostForward("net0", "tcp", "127.0.0.1", 33465, "10.0.2.15", 22),
        HostForward("net0", "udp", "*", 40000, "10.0.2.15", 53),
        HostForward("net1", "tcp", "127.0.0.1", 45123, "10.0.2.15", 22),
    )


def test_port_that_qemu_picked_is_found() -> None:
    assert forwarded_port(USERNET, 22) == 33465
    assert forwarded_port(USERNET, 22, network="net1") == 45123
    assert forwarded_port(USERNET, 53, protocol="udp") == 40000
    assert forwarded_port(USERNET.replace("Hub", "VLAN"), 22, network="net1") == 45123
    with pytest.raises(ParseError, match="port 80"):
        forwarded_port(USERNET, 80)


QTREE = """\
bus: main-system-bus
  type System
  dev: hpet, id ""
    gpio-in "" 2
    timers = 3 (0x3)
  dev: q35-pcihost, id ""
    MCFG = -1 (0xffffffffffffffff)
    bus: pcie.0
      type PCIE
      dev: vfio-pci, id "dut"
        host = "0000:00:03.0"
        type = 1
        class Ethernet controller, addr 00:05.0, pci id 8086:10d3 (sub 8086:0000)
      dev: pcie-root-port, id "rp1"
        bus: rp1
          type PCIE
          dev: nvme, id "nvme0"
            bus: nvme0
              type nvme-bus
  dev: fw_cfg_io, id ""
"""


def test_tree_of_devices_is_read() -> None:
    root = parse_info_qtree(QTREE.replace("\n", "\r\n"))

    assert (root.name, root.type) == ("main-system-bus", "System")
    assert [d.driver for d in root.devices] == ["hpet", "q35-pcihost", "fw_cfg_io"]
    (pcie,) = root.devices[1].buses
    assert (pcie.name, pcie.type) == ("pcie.0", "PCIE")
    assert [(d.driver, d.id) for d in qtree_devices(pcie)] == [
        ("vfio-pci", "dut"),
        ("pcie-root-port", "rp1"),
        ("nvme", "nvme0"),
    ]
    assert pcie.devices[1].buses[0].devices[0].buses[0].type == "nvme-bus"


@pytest.mark.parametrize(
    "text", ["", '  dev: hpet, id ""\n', "bus: a\nbus: b\n", "bus: a\n  bus: b\n"]
)
def test_what_is_no_tree_is_an_error(text: str) -> None:
    with pytest.raises(ParseError):
        parse_info_qtree(text)
