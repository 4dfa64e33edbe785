"""The other end of a card's cable."""

from __future__ import annotations

import socket
from pathlib import Path

from harness.lab.wire import ADDRESS, Wire
from harness.wait import wait_until

FRAME = bytes.fromhex("ffffffffffff020000000007080600010800060400010200000000070a000007") + bytes(
    6
)


def test_who_asks_for_its_address_is_told(tmp_path: Path) -> None:
    wire = Wire(tmp_path)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as card:
            card.settimeout(10)
            card.bind(str(tmp_path / "wire-far"))
            asked = FRAME[:38] + bytes(map(int, ADDRESS.split(".")))
            card.sendto(asked, str(tmp_path / "wire-near"))

            assert card.recv(100)[20:22] == b"\0\x02"
    finally:
        wire.close()


def test_echo_requests_are_counted_by_who_sent_them(tmp_path: Path) -> None:
    wire = Wire(tmp_path)
    try:
        echo = bytes.fromhex("525400000001020000000007080045000000000000004001")
        echo += bytes(10) + b"\x08" + bytes(7)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as card:
            card.sendto(b"too short", str(tmp_path / "wire-near"))
            card.sendto(echo, str(tmp_path / "wire-near"))

        wait_until(
            "the frame is counted",
            lambda: wire.echoes_asked_by("02:00:00:00:00:07") == 1,
            timeout=10,
        )
        assert wire.echoes_asked_by("02:00:00:00:00:08") == 0
    finally:
        wire.close()
