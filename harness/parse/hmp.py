"""Texts of the human monitor: ``xp``, ``info usernet``.

Lines may end in ``\\r\\n``, as QMP ``human-monitor-command`` gives them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.errors import ParseError

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
