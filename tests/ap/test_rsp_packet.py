"""Packets of the remote serial protocol."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.ap.rsp_packet import LARGEST, PacketReader, decode_body, encode_packet
from harness.errors import ParseError


def packets_of(*pieces: bytes) -> list[bytes]:
    reader, found = PacketReader(), []
    for piece in pieces:
        reader.feed(piece)
        while (packet := reader.next()) is not None:
            found.append(packet)
    return found


@given(st.lists(st.binary(max_size=200), max_size=5), st.integers(1, 17))
def test_packets_come_back_however_they_are_cut(contents: list[bytes], size: int) -> None:
    stream = b"+".join(encode_packet(one) for one in contents)
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]

    assert packets_of(*pieces) == contents


@given(st.binary(min_size=1, max_size=60), st.data())
def test_a_byte_that_was_changed_never_makes_another_packet_of_the_same_length(
    content: bytes, data: st.DataObject
) -> None:
    packet = bytearray(encode_packet(content))
    at = data.draw(st.integers(1, len(packet) - 4))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != packet[at]))
    packet[at] = other
    try:
        found = packets_of(bytes(packet))
    except ParseError:
        return
    assert all(len(one) < len(content) + 1 or one != content for one in found)
    assert found == [] or ord("#") == other or found[0] != content


@given(st.binary(max_size=300))
def test_garbage_is_refused_or_gives_nothing_wrong(garbage: bytes) -> None:
    try:
        found = packets_of(garbage)
    except ParseError:
        return
    assert all(isinstance(one, bytes) for one in found)


@given(st.binary(min_size=1, max_size=40), st.integers(1, 44))
def test_a_packet_that_was_cut_short_is_waited_for(content: bytes, cut: int) -> None:
    packet = encode_packet(content)
    assert packets_of(packet[: max(len(packet) - cut, 0)]) == []


def test_acknowledgements_and_notifications_go_by() -> None:
    note = b"%" + encode_packet(b"Stop:T05")[1:]

    assert packets_of(b"++-" + note + encode_packet(b"OK")) == [b"OK"]


@pytest.mark.parametrize(
    ("body", "content"),
    [(b"0* ", b"0000"), (b"a0*!b", b"a00000b"), (b"}\x03", b"#"), (b"}]", b"}"), (b"", b"")],
)
def test_runs_and_escapes_are_undone(body: bytes, content: bytes) -> None:
    assert decode_body(body) == content


@pytest.mark.parametrize("body", [b"*!", b"0*", b"0*\x1f", b"}", b"0*\x7f"])
def test_a_run_or_an_escape_that_cannot_be_is_refused(body: bytes) -> None:
    with pytest.raises(ParseError):
        decode_body(body)


@pytest.mark.parametrize(
    ("stream", "why"),
    [(b"$OK#00", "checksum"), (b"hello", "no packet"), (b"$" + b"a" * (LARGEST + 1), "end")],
)
def test_what_is_no_packet_is_told_as_that(stream: bytes, why: str) -> None:
    with pytest.raises(ParseError, match=why):
        packets_of(stream)
