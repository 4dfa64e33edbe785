"""Frames, and what a host on the wire says to them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.parse.frame import ARP, IPV4, answer, checksum, parse_frame

MAC, ADDRESS = "52:54:00:5e:e1:01", "198.51.100.1"
PEER, PEER_ADDRESS = "02:00:00:00:00:07", "198.51.100.7"


def raw(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ip(address: str) -> bytes:
    return bytes(map(int, address.split(".")))


def arp(target: str, operation: int = 1) -> bytes:
    head = b"\xff" * 6 + raw(PEER) + ARP.to_bytes(2, "big")
    body = bytes.fromhex("000108000604")
    return (
        head
        + body
        + operation.to_bytes(2, "big")
        + raw(PEER)
        + ip(PEER_ADDRESS)
        + bytes(6)
        + ip(target)
    )


def echo(target: str, data: bytes, kind: int = 8) -> bytes:
    icmp = bytes([kind, 0, 0, 0, 0, 1, 0, 1]) + data
    icmp = icmp[:2] + checksum(icmp).to_bytes(2, "big") + icmp[4:]
    head = bytes.fromhex("4500") + (20 + len(icmp)).to_bytes(2, "big") + bytes(4) + b"\x40\x01"
    head += bytes(2) + ip(PEER_ADDRESS) + ip(target)
    head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
    return raw(MAC) + raw(PEER) + IPV4.to_bytes(2, "big") + head + icmp


def test_an_arp_request_for_our_address_is_answered_to_who_asked() -> None:
    said = answer(arp(ADDRESS), MAC, ADDRESS)

    assert said is not None
    assert said[:6] == raw(PEER) and said[6:12] == raw(MAC)
    assert said[20:22] == b"\0\x02"
    assert said[22:32] == raw(MAC) + ip(ADDRESS)
    assert said[32:42] == raw(PEER) + ip(PEER_ADDRESS)


def test_other_arp_is_not_answered() -> None:
    assert answer(arp("198.51.100.9"), MAC, ADDRESS) is None
    assert answer(arp(ADDRESS, operation=2), MAC, ADDRESS) is None


@given(st.binary(max_size=1400))
def test_an_echo_is_answered_with_its_own_data_and_right_checksums(data: bytes) -> None:
    asked = echo(ADDRESS, data)

    said = answer(asked, MAC, ADDRESS)

    assert said is not None
    assert len(said) == len(asked)
    assert said[:12] == raw(PEER) + raw(MAC)
    assert said[26:34] == ip(ADDRESS) + ip(PEER_ADDRESS)
    assert said[34] == 0 and said[42:] == data
    assert checksum(said[14:34]) == 0
    assert checksum(said[34:]) == 0


def test_echo_for_others_and_answers_are_not_answered() -> None:
    assert answer(echo("198.51.100.9", b"x"), MAC, ADDRESS) is None
    assert answer(echo(ADDRESS, b"x", kind=0), MAC, ADDRESS) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    answer(data, MAC, ADDRESS)
    if len(data) < 14:
        with pytest.raises(ValueError, match="no frame"):
            parse_frame(data)
    else:
        assert parse_frame(data).source == data[6:12].hex(":")


def test_an_echo_request_is_known_by_its_head() -> None:
    frame = parse_frame(echo(ADDRESS, b"abc"))

    assert (frame.source, frame.destination, frame.is_echo) == (PEER, MAC, True)
    assert not parse_frame(arp(ADDRESS)).is_echo
