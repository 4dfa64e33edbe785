"""Frames over a stream, as QEMU's backend sends and takes them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import MachineError, WaitTimeout
from harness.machine.netdev_peer import NetdevPeer, netdev_arguments


def packed(*frames: bytes) -> bytes:
    """Return frames as they are on the stream."""
    return b"".join(struct.pack(">I", len(frame)) + frame for frame in frames)


@pytest.fixture
def far() -> Iterator[socket.socket]:
    """QEMU's end; `ours` has the other one."""
    near, far = socket.socketpair()
    PAIRS.append(near)
    with far:
        yield far
    PAIRS.pop().close()


PAIRS: list[socket.socket] = []


@pytest.fixture
def ours(far: socket.socket) -> NetdevPeer:
    """Our end."""
    return NetdevPeer("card", PAIRS[-1])


def test_a_frame_goes_behind_its_length(ours: NetdevPeer, far: socket.socket) -> None:
    """32 bits, big endian."""
    ours.send(b"frame", b"x")

    assert far.recv(100) == b"\0\0\0\5frame\0\0\0\1x"
    assert ours.sent == 2


class Pieces:
    """A stream whose reader gets one piece at a time; a real one may join what was sent."""

    def __init__(self, data: bytes, cut: int) -> None:
        self._left = [data[start : start + cut] for start in range(0, len(data), cut)]

    def settimeout(self, seconds: float) -> None:
        """Nothing ever has to be waited for."""

    def recv(self, size: int) -> bytes:
        """Return the next piece; the end of the stream after the last."""
        return self._left.pop(0) if self._left else b""


@given(frames=st.lists(st.binary(min_size=14, max_size=200), max_size=8), cut=st.integers(1, 50))
def test_frames_come_back_however_they_are_cut(frames: list[bytes], cut: int) -> None:
    """A stream knows no frames: they may arrive in any pieces."""
    ours = NetdevPeer("card", cast(socket.socket, Pieces(packed(*frames), cut)))

    assert ours.receive(len(frames), timeout=5) == frames
    assert ours.received == len(frames)


def test_too_few_frames_are_told(ours: NetdevPeer, far: socket.socket) -> None:
    """With how many there were."""
    far.sendall(packed(b"one"))

    with pytest.raises(WaitTimeout, match=r"card: 1 of 2 frames came"):
        ours.receive(2, timeout=0.05)


def test_all_that_came_is_drained(ours: NetdevPeer, far: socket.socket) -> None:
    """Then it is quiet."""
    far.sendall(packed(b"one", b"two"))

    assert ours.drain(timeout=0.05) == [b"one", b"two"]
    assert ours.drain(timeout=0) == []


def test_what_has_come_is_drained_without_waiting(ours: NetdevPeer, far: socket.socket) -> None:
    """Nothing of it may be counted later."""
    far.sendall(packed(b"one", b"two"))

    assert ours.drain(timeout=0) == [b"one", b"two"]


def test_what_is_for_others_is_left_out(far: socket.socket) -> None:
    """QEMU announces a machine that was restored, in the name of its cards."""
    address, everybody = bytes.fromhex("525400000001"), bytes(range(255, 249, -1))
    ours = NetdevPeer("card", PAIRS[-1], address=address)
    far.sendall(packed(everybody + b"RARP", address + b"back", everybody + b"RARP"))

    assert ours.drain(timeout=0) == [address + b"back"]
    assert ours.received == 1


def test_a_backend_that_hangs_up_is_an_error(ours: NetdevPeer, far: socket.socket) -> None:
    """It is no quiet cable."""
    far.close()

    with pytest.raises(MachineError, match="hung up"):
        ours.receive(1, timeout=5)


def test_a_length_that_is_none_is_an_error(ours: NetdevPeer, far: socket.socket) -> None:
    """The stream is out of step, or is no such stream."""
    far.sendall(b"\xff\xff\xff\xff")

    with pytest.raises(MachineError, match="no frame is 4294967295 bytes long"):
        ours.receive(1, timeout=5)


def test_the_death_of_the_machine_is_told_first() -> None:
    """Its guard knows why."""
    near, far = socket.socketpair()

    def died() -> None:
        raise MachineError("QEMU died")

    with near, far:
        far.close()
        with pytest.raises(MachineError, match="QEMU died"):
            NetdevPeer("card", near, died).receive(1, timeout=5)


def test_netdev_add_is_told_a_socket() -> None:
    """As QAPI wants it."""
    assert netdev_arguments("net", "/run/x") == {
        "type": "stream", "id": "net", "server": True, "addr": {"type": "unix", "path": "/run/x"},
    }  # fmt: skip
