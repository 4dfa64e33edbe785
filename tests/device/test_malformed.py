"""Messages that are wrong: each is answered with its error, or ends the connection."""

from __future__ import annotations

import errno
import os
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.device import protocol
from harness.device.client import Client
from harness.device.protocol import HEADER, Command, PeerGone, Refused
from harness.device.server import Served
from harness.device.wire import Wire
from harness.wait import wait_until

BIG = 0xFFFF_FFFF
HUGE = 0xFFFF_FFFF_FFFF_FFFF


def pack(layout: object, *values: int) -> bytes:
    packed = layout.pack(*values)  # type: ignore[attr-defined]
    assert isinstance(packed, bytes)
    return packed


@pytest.mark.parametrize("command", [0, 11, 12, 19, 99, 0xFFFF])
def test_a_command_that_no_server_knows_is_invalid(
    client: Client, served: Served, command: int
) -> None:
    reply = client.exchange(command)

    assert (reply.failed, reply.error) == (True, errno.EINVAL)
    assert client.info()
    assert "no such command" in str(served.peer_errors[0])


SIZED = [
    (Command.DMA_MAP, 32),
    (Command.DMA_UNMAP, 24),
    (Command.GET_INFO, 16),
    (Command.GET_REGION_INFO, 32),
    (Command.GET_REGION_IO_FDS, 16),
    (Command.GET_IRQ_INFO, 16),
    (Command.SET_IRQS, 20),
    (Command.REGION_READ, 16),
    (Command.REGION_WRITE, 16),
    (Command.REGION_WRITE_MULTI, 8),
]


@pytest.mark.parametrize(("command", "size"), SIZED)
def test_a_payload_that_is_too_short_is_invalid(
    client: Client, served: Served, command: Command, size: int
) -> None:
    for short in {0, 1, size // 2, size - 1}:
        reply = client.exchange(command, b"\1" * short)
        assert (reply.failed, reply.error) == (True, errno.EINVAL)
        assert f"payload of {short} bytes, {size} are needed" in str(served.peer_errors[-1])

    assert client.info()


@pytest.mark.parametrize(
    ("command", "payload"),
    [
        (Command.GET_INFO, pack(protocol.DEVICE_INFO, 15, 0, 0, 0)),
        (Command.GET_REGION_INFO, pack(protocol.REGION_INFO, 31, 0, 0, 0, 0, 0)),
        (Command.GET_REGION_IO_FDS, pack(protocol.IO_FDS, 15, 0, 0, 0)),
        (Command.GET_IRQ_INFO, pack(protocol.IRQ_INFO, 0, 0, 0, 0)),
        (Command.SET_IRQS, pack(protocol.IRQ_SET, 19, 9, 2, 0, 1)),
        (Command.DMA_MAP, pack(protocol.DMA_MAP, 0, 3, 0, 0x1000, 0x1000)),
        (Command.DMA_UNMAP, pack(protocol.DMA_UNMAP, 23, 0, 0x1000, 0x1000)),
    ],
    ids=lambda value: value.name if isinstance(value, Command) else "",
)
def test_an_argsz_without_room_for_the_answer_is_invalid(
    client: Client, served: Served, command: Command, payload: bytes
) -> None:
    reply = client.exchange(command, payload)

    assert (reply.failed, reply.error) == (True, errno.EINVAL)
    assert "argsz" in str(served.peer_errors[0])
    assert client.info()


ACCESS = protocol.ACCESS


@pytest.mark.parametrize(
    ("command", "payload"),
    [
        (Command.REGION_READ, pack(ACCESS, 0, 0, 0)),
        (Command.REGION_READ, pack(ACCESS, 0, 9, 4)),
        (Command.REGION_READ, pack(ACCESS, 0, BIG, 4)),
        (Command.REGION_READ, pack(ACCESS, 0, 3, 4)),
        (Command.REGION_READ, pack(ACCESS, 0x1000, 0, 4)),
        (Command.REGION_READ, pack(ACCESS, 0xFFD, 0, 4)),
        (Command.REGION_READ, pack(ACCESS, HUGE, 0, 4)),
        (Command.REGION_READ, pack(ACCESS, HUGE, 0, BIG)),
        (Command.REGION_READ, pack(ACCESS, 0, 0, BIG)),
        (Command.REGION_READ, pack(ACCESS, 0, 2, (1 << 20) + 1)),
        (Command.REGION_WRITE, pack(ACCESS, 0, 0, 4)),
        (Command.REGION_WRITE, pack(ACCESS, 0, 0, 4) + b"12345"),
        (Command.REGION_WRITE, pack(ACCESS, 0, 0, BIG) + b"1234"),
        (Command.REGION_WRITE, pack(ACCESS, HUGE, 0, 4) + b"1234"),
        (Command.REGION_WRITE_MULTI, pack(protocol.MULTI, 1)),
        (Command.REGION_WRITE_MULTI, pack(protocol.MULTI, HUGE) + bytes(24)),
        (Command.REGION_WRITE_MULTI, pack(protocol.MULTI, 1) + pack(ACCESS, 0, 0, 9) + bytes(8)),
        (Command.REGION_WRITE_MULTI, pack(protocol.MULTI, 1) + pack(ACCESS, 0, 9, 4) + bytes(8)),
        (Command.GET_REGION_INFO, pack(protocol.REGION_INFO, 32, 0, 9, 0, 0, 0)),
        (Command.GET_REGION_INFO, pack(protocol.REGION_INFO, 32, 0, BIG, 0, 0, 0)),
        (Command.GET_IRQ_INFO, pack(protocol.IRQ_INFO, 16, 0, 5, 0)),
        (Command.GET_REGION_IO_FDS, pack(protocol.IO_FDS, 16, 1, 0, 0)),
        (Command.GET_REGION_IO_FDS, pack(protocol.IO_FDS, 16, 0, 0, 1)),
        (Command.GET_REGION_IO_FDS, pack(protocol.IO_FDS, 16, 0, 9, 0)),
        (Command.DMA_MAP, pack(protocol.DMA_MAP, 32, 0, 0, 0x1000, 0x1000)),
        (Command.DMA_UNMAP, pack(protocol.DMA_UNMAP, 24, 4, 0x1000, 0x1000)),
        (Command.DMA_UNMAP, pack(protocol.DMA_UNMAP, 24, 2, 0x1000, 0x1000)),
        (Command.DMA_UNMAP, pack(protocol.DMA_UNMAP, 24, 0, HUGE, HUGE)),
        (Command.VERSION, protocol.version_payload()),
    ],
)
def test_what_cannot_be_done_is_invalid_and_the_next_message_is_answered(
    client: Client, served: Served, command: Command, payload: bytes
) -> None:
    reply = client.exchange(command, payload)

    assert (reply.failed, reply.error, reply.payload) == (True, errno.EINVAL, b"")
    assert len(served.peer_errors) == 1
    assert served.device.log.total == 0
    assert client.info()


def test_dirty_pages_at_unmap_are_not_supported(client: Client) -> None:
    payload = protocol.DMA_UNMAP.pack(24, protocol.UNMAP_DIRTY_BITMAP, 0, 0x1000)

    assert client.exchange(Command.DMA_UNMAP, payload).error == errno.ENOTSUP


def test_an_error_to_a_message_without_reply_is_only_noted(client: Client, served: Served) -> None:
    client.post(Command.REGION_WRITE, b"short")

    assert client.info()
    assert len(served.peer_errors) == 1


def test_a_reply_that_nobody_asked_is_noted_and_no_more(client: Client, served: Served) -> None:
    client.wire.send(77, Command.DMA_READ, bytes(16), flags=protocol.TYPE_REPLY)

    assert client.info()
    assert "nobody asked" in str(served.peer_errors[0])


@pytest.mark.parametrize(
    "header",
    [
        HEADER.pack(1, Command.GET_INFO, 0, 0, 0),
        HEADER.pack(1, Command.GET_INFO, 15, 0, 0),
        HEADER.pack(1, Command.GET_INFO, protocol.MAX_MESSAGE + 1, 0, 0),
        HEADER.pack(1, Command.GET_INFO, BIG, 0, 0),
        HEADER.pack(1, Command.GET_INFO, 16, 2, 0),
        HEADER.pack(1, Command.GET_INFO, 16, 15, 0),
    ],
    ids=["size-0", "size-15", "too-long", "size-max", "type-2", "type-15"],
)
def test_a_stream_that_cannot_be_trusted_is_closed(
    client: Client, served: Served, header: bytes
) -> None:
    client.wire.send_bytes(header)

    with pytest.raises(PeerGone):
        client.wire.receive()
    assert "header" in str(served.peer_errors[0])


@pytest.mark.parametrize("sent", [1, 15, 16, 20])
def test_a_client_that_leaves_in_a_message_is_gone_and_no_more(served: Served, sent: int) -> None:
    with Client(served.socket) as client:
        client.wire.send_bytes((HEADER.pack(1, Command.GET_INFO, 32, 0, 0) + bytes(16))[:sent])
    with Client(served.socket) as client:
        assert client.info()

    assert not served.failures


def test_more_descriptors_than_were_announced_end_the_connection(
    client: Client, served: Served
) -> None:
    fds = [os.eventfd(0) for _ in range(protocol.MAX_FDS + 1)]
    client.wire.send(1, Command.GET_INFO, bytes(16), fds=fds)

    with pytest.raises(PeerGone):
        client.wire.receive()
    for fd in fds:
        os.close(fd)
    assert "descriptors" in str(served.peer_errors[0])


def test_descriptors_that_nobody_wants_are_closed(client: Client) -> None:
    before = len(os.listdir("/proc/self/fd"))
    fds = [os.eventfd(0) for _ in range(4)]
    client.exchange(Command.GET_INFO, protocol.DEVICE_INFO.pack(16, 0, 0, 0), fds=fds)
    client.exchange(Command.DMA_MAP, b"", fds=fds)
    client.exchange(Command.REGION_READ, bytes(16), fds=fds)
    for fd in fds:
        os.close(fd)
    client.info()  # what came before it is done with

    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0\0\1",
        pack(protocol.VERSION, 1, 0),
        pack(protocol.VERSION, 0, 1) + b"{}",
        pack(protocol.VERSION, 0, 1) + b"{{\0",
        pack(protocol.VERSION, 0, 1) + b"[]\0",
        pack(protocol.VERSION, 0, 1) + b'{"capabilities": []}\0',
        pack(protocol.VERSION, 0, 1) + b'{"capabilities": {"max_msg_fds": -1}}\0',
        pack(protocol.VERSION, 0, 1) + b'{"capabilities": {"max_msg_fds": true}}\0',
        pack(protocol.VERSION, 0, 1) + b"\xff\xfe\0",
        pack(protocol.VERSION, 0, 1) + b"[" * 100_000 + b"\0",
    ],
)
def test_without_a_version_that_we_speak_there_is_no_session(
    served: Served, payload: bytes
) -> None:
    with Client(served.socket, negotiate=False) as client:
        reply = client.exchange(Command.VERSION, payload)
        with pytest.raises(PeerGone):
            client.wire.receive()

    assert (reply.failed, reply.error) == (True, errno.EINVAL)
    assert "VERSION" in str(served.peer_errors[0])


def test_the_version_comes_first(served: Served) -> None:
    with Client(served.socket, negotiate=False) as client:
        reply = client.exchange(Command.GET_INFO, bytes(16))
        with pytest.raises(PeerGone):
            client.wire.receive()

    assert reply.error == errno.EINVAL
    assert "before VERSION" in str(served.peer_errors[0])


@pytest.mark.parametrize(("asked", "given"), [(0, 0), (1, 1), (7, 1)])
def test_the_lower_minor_version_is_agreed_on(served: Served, asked: int, given: int) -> None:
    with Client(served.socket, negotiate=False) as client:
        reply = client.exchange(Command.VERSION, protocol.version_payload(minor=asked))

    assert protocol.read_version(reply.payload)[:2] == (0, given)


def test_a_version_without_data_means_the_defaults() -> None:
    assert protocol.read_version(protocol.VERSION.pack(0, 1))[2] == protocol.Limits()


@given(st.binary(max_size=200))
def test_any_version_payload_is_read_or_refused(payload: bytes) -> None:
    try:
        protocol.read_version(payload)
    except Refused as refused:
        assert refused.fatal


def test_a_second_client_waits_for_the_first(served: Served) -> None:
    with Client(served.socket) as first:
        seen: list[object] = []

        def second() -> None:
            with Client(served.socket) as client:
                seen.append(client.info())

        waiting = threading.Thread(target=second)
        waiting.start()
        assert first.info()
        assert not seen
    waiting.join(10)

    assert len(seen) == 1


MESSAGES = st.tuples(
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.integers(0, 1),
    st.sampled_from([0, protocol.FLAG_NO_REPLY, protocol.FLAG_ERROR]),
    st.integers(0, BIG),
    st.binary(max_size=3000),
    st.integers(0, 3),
)


@given(st.lists(MESSAGES, min_size=1, max_size=5), st.integers(1, 64))
def test_what_is_sent_is_received(
    messages: list[tuple[int, int, int, int, int, bytes, int]], split: int
) -> None:
    ours, theirs = socket.socketpair()
    sender, receiver = Wire(ours), Wire(theirs)
    fd = os.eventfd(0)
    try:
        for number, command, kind, flags, error, payload, count in messages:
            sender.send(
                number, command, payload, flags=kind | flags, error=error, fds=[fd] * count
            )
        for number, command, kind, flags, error, payload, count in messages:
            got = receiver.receive()
            assert got is not None
            assert (got.id, got.command, got.flags) == (number, command, kind | flags)
            assert (got.error, got.payload, len(got.fds)) == (error, payload, count)
            got.close()
        for byte in HEADER.pack(1, 2, 16 + split, 0, 0) + bytes(split):
            sender.send_bytes(bytes([byte]))  # however it is cut
        got = receiver.receive()
        assert got is not None
        assert got.payload == bytes(split)
    finally:
        os.close(fd)
        sender.close()
        receiver.close()


def test_a_peer_that_is_gone_is_told_at_sending_too(served: Served) -> None:
    client = Client(served.socket)
    served.disconnect()
    wait_until("the server let go", lambda: not served.connected, timeout=10)

    with pytest.raises(PeerGone):
        for _ in range(1000):
            client.wire.send(1, Command.GET_INFO, bytes(4096))
    client.close()
