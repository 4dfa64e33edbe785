"""Ethernet frames: who sent one, what it is, and what a host on the wire answers to it. Pure.

IEEE 802.3; ARP: RFC 826; IPv4: RFC 791; echo: RFC 792.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ARP: Final = 0x0806
IPV4: Final = 0x0800

_ASK, _ANSWER = 1, 2
_ICMP: Final = 1
_ECHO: Final = 8


@dataclass(frozen=True, slots=True)
class Frame:
    """The head of a frame; addresses are printed ``52:54:00:12:34:56``."""

    destination: str
    source: str
    kind: int
    """EtherType."""
    is_echo: bool = False
    """It asks for an echo."""


def mac_bytes(mac: str) -> bytes:
    """Return the six bytes of ``52:54:00:12:34:56``.

    :raise ValueError: it is not hexadecimal.
    """
    return bytes.fromhex(mac.replace(":", ""))


def parse_frame(data: bytes) -> Frame:
    """Read the head of *data*.

    :raise ValueError: it is too short for a frame.
    """
    if len(data) < 14:
        raise ValueError(f"{len(data)} bytes are no frame")
    kind = int.from_bytes(data[12:14], "big")
    return Frame(data[:6].hex(":"), data[6:12].hex(":"), kind, kind == IPV4 and _asks_echo(data))


def answer(data: bytes, mac: str, address: str) -> bytes | None:
    """Return what a host at *mac* and *address* (IPv4) answers: to ARP, and to an echo request.

    None: nothing.
    """
    ours, wanted = mac_bytes(mac), bytes(map(int, address.split(".")))
    if len(data) < 14:
        return None
    kind = int.from_bytes(data[12:14], "big")
    if kind == ARP and len(data) >= 42:
        asks = int.from_bytes(data[20:22], "big") == _ASK and data[38:42] == wanted
        head = data[6:12] + ours + data[12:20] + _ANSWER.to_bytes(2, "big")
        return head + ours + wanted + data[22:32] if asks else None
    if kind == IPV4 and _asks_echo(data) and data[30:34] == wanted:
        end = 14 + int.from_bytes(data[16:18], "big")
        start = 14 + 4 * (data[14] & 0xF)
        body = b"\0\0\0\0" + data[start + 4 : end]
        body = b"\0\0" + checksum(body).to_bytes(2, "big") + body[4:]
        addresses = data[30:34] + data[26:30]
        return data[6:12] + ours + data[12:26] + addresses + data[34:start] + body
    return None


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(data[n : n + 2], "big") for n in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _asks_echo(data: bytes) -> bool:
    start = 14 + 4 * (data[14] & 0xF) if len(data) >= 34 else 0
    return len(data) >= 34 and data[23] == _ICMP and len(data) > start and data[start] == _ECHO
