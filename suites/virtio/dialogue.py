"""What a driver can say to a vhost device so that the host's kernel answers, and nobody else.

Two devices: vhost-vsock, whose kernel refuses a connection to a port where nobody listens, and
vhost-net on a tap, whose kernel answers an ARP request. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from harness.machine.command import Device

_GUEST_CID, _HOST_CID = 7, 2
_STREAM, _CONNECT, _RESET = 1, 1, 3
_PACKET: Final = struct.Struct("<QQIIIHHIII")
"""Header (virtio 1.3, 5.10.6): CIDs, ports, length, type, operation, flags, credit twice."""
_KNOWN: Final = 32
"""Bytes of it that are known of an answer: all but flags and credit."""

_NET_HEADER: Final = 12
"""Bytes before a frame (virtio 1.3, 5.1.6)."""
_OURS, _THEIRS = bytes.fromhex("525400000007"), bytes.fromhex("525400000001")
_ARP: Final = struct.Struct(">6s6sHHHBBH6s4s6s4s")
_KIND: Final = (0x0806, 1, 0x0800, 6, 4)
"""Ethernet's type for ARP, then hardware and protocol, and how long their addresses are."""
_NETWORK: Final = "192.0.2"
"""For documentation (RFC 5737)."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A vhost device, and how to talk to it.

    :param driver: QEMU's device with *options*.
    :param node: what the host must have for it, by *modules*.
    :param request: returns what is sent, by a number from 0 to 9.
    :param answer: returns what comes then, from *skipped* bytes on in the buffer.
    :param extra: words for QEMU.
    :param prepare: shell text for the host when the machine is there.
    :param by_number: returns the same with another name on the host, by a number from 0 on.
    """

    name: str
    driver: str
    node: str
    modules: tuple[str, ...]
    request: Callable[[int], bytes]
    answer: Callable[[int], bytes]
    skipped: int = 0
    options: dict[str, str | int | bool] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    prepare: str = ""
    by_number: Callable[[int], Dialogue] | None = None

    def apart(self, number: int) -> Dialogue:
        """Return the same, told apart from others that were on the host.

        It may stay there when its QEMU is gone: docs/findings/vhost-stays-open.md.
        """
        return self.by_number(number) if self.by_number else self

    def device(self, *, platform: bool) -> Device:
        """Return the device on the first root port; *platform*: ``iommu_platform``."""
        options = {**self.options, "iommu_platform": platform, "ats": True}
        return Device(self.driver, self.name, "rp0", "0", options)


def vsock_talk(cid: int) -> Dialogue:
    """Return the one with vhost-vsock, the guest being *cid*."""

    def header(number: int, source: int, target: int, operation: int, credit: int) -> bytes:
        port = 1000 + number
        return _PACKET.pack(source, target, port, port, 0, _STREAM, operation, 0, credit, 0)

    return Dialogue(
        "vsock",
        "vhost-vsock-pci",
        "/dev/vhost-vsock",
        ("vhost_vsock",),
        lambda number: header(number, cid, _HOST_CID, _CONNECT, 4096),
        lambda number: header(number, _HOST_CID, cid, _RESET, 0)[:_KNOWN],
        options={"guest-cid": cid},
        by_number=lambda number: vsock_talk(_GUEST_CID + 1 + number),
    )


def net_talk(place: int) -> Dialogue:
    """Return the one with vhost-net, on tap *place* of sixteen, each with a network of its own."""
    tap, first = f"trapline{place}", 16 * place

    def arp(number: int, *, reply: bool) -> bytes:
        """Return a frame: we, at one of ten addresses, ask for that of the tap; or its answer."""
        we, they = (_address(first + 2 + number), _address(first + 1))
        if reply:
            return _ARP.pack(_OURS, _THEIRS, *_KIND, 2, _THEIRS, they, _OURS, we)
        return _ARP.pack(b"\xff" * 6, _OURS, *_KIND, 1, _OURS, we, bytes(6), they)

    return Dialogue(
        "net",
        "virtio-net-pci",
        "/dev/vhost-net",
        ("vhost_net", "tun"),
        lambda number: bytes(_NET_HEADER) + arp(number, reply=False),
        lambda number: arp(number, reply=True),
        skipped=_NET_HEADER,
        options={"netdev": "tap", "romfile": "", "mac": _OURS.hex(":")},
        extra=("-netdev", f"tap,id=tap,ifname={tap},script=no,downscript=no,vhost=on"),
        # Nobody else may send there: frames that nobody asked for would take the buffer.
        prepare=f"""
            echo 1 > /proc/sys/net/ipv6/conf/{tap}/disable_ipv6 2>/dev/null || :
            ip link set {tap} address {_THEIRS.hex(":")} &&
            ip addr add {_NETWORK}.{first + 1}/28 dev {tap} && ip link set {tap} up""",
        by_number=lambda number: net_talk(number % 16),
    )


def _address(last: int) -> bytes:
    return bytes(map(int, _NETWORK.split("."))) + bytes([last])


VSOCK_TALK: Final = vsock_talk(_GUEST_CID)
NET_TALK: Final = net_talk(0)
TALKS: Final = {talk.name: talk for talk in (VSOCK_TALK, NET_TALK)}
