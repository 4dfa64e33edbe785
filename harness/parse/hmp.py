"""Texts of the human monitor: ``info pci``, ``xp``, ``info usernet``, ``info qtree``.

Lines may end in ``\\r\\n``, as QMP ``human-monitor-command`` gives them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from harness.errors import ParseError
from harness.model.pci import Bdf, PciId
from harness.model.pci_listing import QueryPciBar, QueryPciBridge, QueryPciFunction

_ALL_ONES = (1 << 64) - 1

# -- info pci: hw/pci/pci-hmp-cmds.c:hmp_info_pci_device() ---------------------------------
_DEVICE = re.compile(r"\s*Bus\s+(\d+), device\s+(\d+), function (\d+):")
_CLASS = re.compile(r"\s*(?:Class (\d{4,})|(.*)): PCI device ([0-9a-f]{4}):([0-9a-f]{4})\s*$")
_SUBSYSTEM = re.compile(r"\s*PCI subsystem ([0-9a-f]{4}):([0-9a-f]{4})")
_IRQ = re.compile(r"\s*IRQ (\d+)(?:, pin ([A-D]))?")
_BUS = re.compile(r"\s*(BUS|secondary bus|subordinate bus) (\d+)\.")
_BAR = re.compile(
    r"\s*BAR(\d): (?:(I/O)|(32|64) bit( prefetchable)? memory) "
    r"(?:at 0x([0-9a-f]+) \[0x([0-9a-f]+)\]|\(not mapped\))"
)
_ID = re.compile(r'\s*id "(.*)"')


def parse_info_pci(text: str) -> tuple[QueryPciFunction, ...]:
    """Read ``info pci``. A class without a name is printed in decimal; `class_code` has it.

    :raise ParseError: a function without a line of ids.
    """
    found: list[QueryPciFunction] = []
    lines = text.splitlines()
    starts = [at for at, line in enumerate(lines) if _DEVICE.match(line)]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        found.append(_function(lines[start:end]))
    return tuple(found)


def _function(lines: list[str]) -> QueryPciFunction:
    where = "info pci"
    place = _DEVICE.match(lines[0])
    ids = _CLASS.match(lines[1]) if len(lines) > 1 else None
    if place is None or ids is None:
        raise ParseError("no class and ids", text="\n".join(lines[:2]), where=where)
    function = QueryPciFunction(
        Bdf(0, int(place[1]), int(place[2]), int(place[3])),
        PciId(int(ids[3], 16), int(ids[4], 16)),
        class_code=int(ids[1]) if ids[1] else None,
        class_words=ids[2] or "",
    )
    buses: dict[str, int] = {}
    for line in lines[2:]:
        if match := _BAR.match(line):
            function = replace(function, bars=(*function.bars, _bar(match)))
        elif match := _SUBSYSTEM.match(line):
            function = replace(function, subsystem=PciId(int(match[1], 16), int(match[2], 16)))
        elif match := _IRQ.match(line):
            pin = ord(match[2]) - ord("A") + 1 if match[2] else 0
            function = replace(function, irq=int(match[1]), pin=pin)
        elif match := _BUS.match(line):
            buses[match[1]] = int(match[2])
        elif match := _ID.match(line):
            function = replace(function, qdev_id=match[1])
    if len(buses) == 3:
        numbers = (buses["BUS"], buses["secondary bus"], buses["subordinate bus"])
        function = replace(function, bridge=QueryPciBridge(*numbers))
    return function


def _bar(match: re.Match[str]) -> QueryPciBar:
    address: int | None = None
    size: int | None = None
    if match[5]:
        address, last = int(match[5], 16), int(match[6], 16)
        size = (last - address + 1) & _ALL_ONES
        # Old versions print an unmapped BAR as if it were at 2^64-1.
        address = None if address == _ALL_ONES else address
    return QueryPciBar(
        int(match[1]), not match[2], address, size, match[3] == "64", bool(match[4])
    )


# -- xp: monitor/hmp-cmds-target.c:memory_dump() -------------------------------------------
_DUMP = re.compile(r"([0-9a-f]{8,16}):((?: 0x[0-9a-f]+)+)\s*$")


@dataclass(frozen=True, slots=True)
class MemoryDump:
    """Words read by ``xp`` or ``x`` with format x."""

    address: int
    width: int
    """Bytes of a word: 1, 2, 4 or 8."""
    words: tuple[int, ...]

    def at(self, address: int) -> int:
        """Return the word at *address*.

        :raise KeyError: it was not read.
        """
        index, odd = divmod(address - self.address, self.width)
        if odd or not 0 <= index < len(self.words):
            raise KeyError(f"no word at {address:#x}")
        return self.words[index]


def parse_examine(text: str) -> MemoryDump:
    """Read the answer to ``xp /Nwx ADDRESS`` (any of b, h, w, g; format x).

    :raise ParseError: no words (``Cannot access memory``), or a gap between lines.
    """
    start = width = 0
    words: list[int] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        match = _DUMP.match(line.strip())
        if match is None:
            raise ParseError("not a line of words", text=text, where="xp")
        values = match[2].split()
        if not words:
            start, width = int(match[1], 16), (len(values[0]) - 2) // 2
        if int(match[1], 16) != start + width * len(words):
            raise ParseError("lines do not join", text=text, where="xp")
        words += (int(value, 16) for value in values)
    if not words or width not in (1, 2, 4, 8):
        raise ParseError("no words", text=text, where="xp")
    return MemoryDump(start, width, tuple(words))


# -- info usernet: net/slirp.c:hmp_info_usernet(), libslirp slirp_connection_info() --------
_STACK = re.compile(r"(?:Hub|VLAN) -?\d+ \((.*)\):\s*$")
_FORWARD = re.compile(
    r"\s*(TCP|UDP)\[HOST_FORWARD\]\s+-?\d+\s+(\S+)\s+(\d+)\s+(\S+)\s+(\d+)\s+\d+\s+\d+\s*$"
)


@dataclass(frozen=True, slots=True)
class HostForward:
    """One ``hostfwd`` of a user-mode network."""

    network: str
    """Name of the netdev."""
    protocol: str
    """``tcp`` or ``udp``."""
    host_address: str
    """``*``: all."""
    host_port: int
    guest_address: str
    guest_port: int


def parse_info_usernet(text: str) -> tuple[HostForward, ...]:
    """Return the forwards in ``info usernet``; connections are passed over."""
    network = ""
    found = []
    for line in text.splitlines():
        if match := _STACK.match(line):
            network = match[1]
        elif match := _FORWARD.match(line):
            found.append(
                HostForward(
                    network, match[1].lower(), match[2], int(match[3]), match[4], int(match[5])
                )
            )
    return tuple(found)


def forwarded_port(text: str, guest_port: int, *, network: str = "", protocol: str = "tcp") -> int:
    """Return the host's port that leads to *guest_port*: what QEMU took for ``:0-:22``.

    :param network: netdev; the first that fits if empty.
    :raise ParseError: there is no such forward.
    """
    for forward in parse_info_usernet(text):
        if (
            forward.guest_port == guest_port
            and forward.protocol == protocol
            and network in ("", forward.network)
        ):
            return forward.host_port
    raise ParseError(
        f"no {protocol} forward to port {guest_port} {f'of {network}' if network else ''}".strip(),
        text=text,
        where="info usernet",
    )


# -- info qtree: system/qdev-monitor.c:qbus_print() ----------------------------------------
_QBUS = re.compile(r"( *)bus: (.*)$")
_QDEV = re.compile(r'( *)dev: (\S+), id "(.*)"$')
_QTYPE = re.compile(r"( *)type (\S+)$")


@dataclass(slots=True)
class QtreeBus:
    """A bus and what sits on it."""

    name: str
    type: str = ""
    devices: list[QtreeDevice] = field(default_factory=list)


@dataclass(slots=True)
class QtreeDevice:
    """A device and the buses it makes."""

    driver: str
    id: str
    """Empty if it has none."""
    buses: list[QtreeBus] = field(default_factory=list)


def parse_info_qtree(text: str) -> QtreeBus:
    """Return the root bus of ``info qtree`` (with or without ``-b``); properties are left out.

    :raise ParseError: it does not begin with a bus, or a device is on none.
    """
    where = "info qtree"
    root: QtreeBus | None = None
    # (indent, bus or device) from the root down to where we are.
    path: list[tuple[int, QtreeBus | QtreeDevice]] = []
    for line in text.splitlines():
        bus, device, kind = _QBUS.match(line), _QDEV.match(line), _QTYPE.match(line)
        if bus is None and device is None:
            if kind and path and isinstance(path[-1][1], QtreeBus) and not path[-1][1].type:
                path[-1][1].type = kind[2]
            continue
        indent = len((bus or device or line)[1])
        while path and path[-1][0] >= indent:
            path.pop()
        holder = path[-1][1] if path else None
        if bus is not None:
            made: QtreeBus | QtreeDevice = QtreeBus(bus[2].strip())
            if isinstance(holder, QtreeDevice) and isinstance(made, QtreeBus):
                holder.buses.append(made)
            elif holder is None and root is None and isinstance(made, QtreeBus):
                root = made
            else:
                raise ParseError("a bus that no device makes", text=line, where=where)
        elif device is not None:
            made = QtreeDevice(device[2], device[3])
            if not isinstance(holder, QtreeBus):
                raise ParseError("a device that is on no bus", text=line, where=where)
            holder.devices.append(made)
        path.append((indent, made))
    if root is None:
        raise ParseError("no bus", text=text[:500], where=where)
    return root


def qtree_devices(bus: QtreeBus) -> Iterator[QtreeDevice]:
    """Yield every device below *bus*, parents first."""
    for device in bus.devices:
        yield device
        for below in device.buses:
            yield from qtree_devices(below)
