"""What a system is told when it wakes, what it may answer, and the key it gets."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import MachineDied, Unreachable, WaitTimeout
from harness.guest.keys import HostKey, make_host_key, make_key
from harness.guest.wake import ENTROPY_BYTES, wake, wake_line
from harness.machine.machine import Machine

KEY = HostKey(b"\x00\xff" * 32, "ssh-ed25519 AAAA")


@given(now=st.floats(0, 2**33), entropy=st.binary(min_size=32, max_size=64))
def test_the_line_says_each_word_once_and_in_one_line(now: float, entropy: bytes) -> None:
    line = wake_line("AAAA+/==", KEY, now=now, entropy=entropy, machine="0" * 32)

    assert line.endswith("\n") and line.count("\n") == 1 and line.isascii()
    words = dict(word.split("=", 1) for word in line.split())
    assert list(words) == ["clock", "entropy", "machine", "authorized", "hostkey"]
    # The grammar of images/probe/wake.c.
    seconds, nanoseconds = re.fullmatch(r"(\d{1,12})\.(\d{9})", words["clock"]).groups()  # type: ignore[union-attr]
    assert int(seconds) + int(nanoseconds) / 1e9 == pytest.approx(now, abs=1e-5)
    assert bytes_of(words["entropy"]) == entropy
    assert words["authorized"] == "AAAA+/=="
    assert bytes_of(words["hostkey"]) == KEY.pair
    assert len(line) < 4096  # of images/probe/wake.c: serve()


def bytes_of(word: str) -> bytes:
    return base64.b64decode(word + "=" * (-len(word) % 4), validate=True)


class System:
    """The far end of the second serial port: says *answer* when it was told a line."""

    def __init__(self, answer: bytes = b"", *, closes: bool = False, dies: str = "") -> None:
        self.ours, self._theirs = socket.socketpair()
        self.heard = b""
        self._answer, self._closes, self._dies = answer, closes, dies
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self.heard.endswith(b"\n"):
            if not (news := self._theirs.recv(65536)):
                return  # nobody came
            self.heard += news
        for byte in self._answer:  # a serial line knows no messages
            self._theirs.sendall(bytes([byte]))
        if self._closes:
            self._theirs.close()

    def check(self) -> None:
        if self._dies:
            raise MachineDied(self._dies)

    def close(self) -> None:
        self.ours.close()
        self._thread.join(5)
        self._theirs.close()


@pytest.fixture
def machine_of(tmp_path: Path) -> Iterator[Callable[[System], Machine]]:
    """Make a machine whose second serial port leads to a system."""
    with contextlib.ExitStack() as stack:

        def make(system: System, *, there: bool = True) -> Machine:
            stack.callback(system.close)
            return cast(Machine, SimpleNamespace(
                spec=SimpleNamespace(name="m"), sockets=SimpleNamespace(wake="wake.sock"),
                evidence=tmp_path, check=system.check,
                try_connect=lambda path: system.ours if there else None,
            ))  # fmt: skip

        yield make


Make = Callable[..., Machine]


def test_a_system_that_wakes_is_known_by_the_key_it_was_given(machine_of: Make) -> None:
    system = System(b"awake\n")

    public = wake(machine_of(system), "AAAA")

    words = dict(word.split("=", 1) for word in system.heard.decode().split())
    assert public == public_half(bytes_of(words["hostkey"]))
    assert len(bytes_of(words["entropy"])) == ENTROPY_BYTES
    assert re.fullmatch("[0-9a-f]{32}", words["machine"])


def test_no_two_systems_are_told_the_same(machine_of: Make) -> None:
    systems = [System(b"awake\n") for _ in range(2)]
    for system in systems:
        wake(machine_of(system), "AAAA")

    one, other = (system.heard.decode().split() for system in systems)

    assert [a == b for a, b in zip(one, other, strict=True)] == [False, False, False, True, False]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"refused clock: Operation not permitted\n", "refused clock: Operation not permitted"),
        (b"\n", ""),
        (b"awake?\n", "awake"),
        (b"\xff\x00awake\n", "awake"),
        (b"trapline login: \n", "trapline login:"),
    ],
)
def test_any_other_answer_is_a_refusal(machine_of: Make, answer: bytes, said: str) -> None:
    with pytest.raises(Unreachable, match=r"refuses to wake(.|\n)*next: ") as caught:
        wake(machine_of(System(answer)), "AAAA")

    assert said in caught.value.seen


@pytest.mark.parametrize("half", [b"", b"awa"])
def test_silence_ends_at_the_deadline_and_shows_what_came(machine_of: Make, half: bytes) -> None:
    with pytest.raises(Unreachable, match="does not wake") as caught:
        wake(machine_of(System(half)), "AAAA", timeout=0.6)

    assert caught.value.seen == half.decode()


def test_a_line_that_is_closed_is_told(machine_of: Make) -> None:
    with pytest.raises(Unreachable, match="second serial port was closed"):
        wake(machine_of(System(b"awa", closes=True)), "AAAA")


def test_a_machine_that_died_says_so_itself(machine_of: Make) -> None:
    with pytest.raises(MachineDied, match="QEMU was ended"):
        wake(machine_of(System(closes=True, dies="m: QEMU was ended")), "AAAA")


def test_a_machine_without_the_port_ends_at_the_deadline(machine_of: Make) -> None:
    with pytest.raises(WaitTimeout, match="its second serial port"):
        wake(machine_of(System(), there=False), "AAAA", timeout=0.1)


# keys


def strings_of(blob: bytes) -> list[bytes]:
    """Return the SSH strings (RFC 4251, section 5) that *blob* is made of."""
    found = []
    while blob:
        length = int.from_bytes(blob[:4], "big")
        assert len(blob) >= 4 + length
        found.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    return found


def public_half(pair: bytes) -> str:
    """Return kind and base64 of the public key that follows from the seed in *pair*."""
    public = Ed25519PrivateKey.from_private_bytes(pair[:32]).public_key().public_bytes_raw()
    assert public == pair[32:]
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (b"ssh-ed25519", public))
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


def test_a_host_key_is_a_seed_and_the_public_half_that_follows_from_it() -> None:
    key = make_host_key()

    assert len(key.pair) == 64
    assert key.public == public_half(key.pair)
    assert make_host_key().pair != key.pair


def test_the_key_of_a_run_is_private_and_its_public_half_has_no_comment(tmp_path: Path) -> None:
    key = make_key(tmp_path)

    assert key.private.stat().st_mode & 0o777 == 0o600
    assert strings_of(base64.b64decode(key.public))[0] == b"ssh-ed25519"
    with pytest.raises(FileExistsError):
        make_key(tmp_path)
