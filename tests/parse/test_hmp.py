"""Texts of the human monitor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import ParseError
from harness.parse.hmp import (
    HostForward,
    forwarded_port,
    parse_examine,
    parse_info_usernet,
)


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
