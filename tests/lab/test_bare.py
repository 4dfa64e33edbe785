"""Registers of a machine that executes nothing, over a qtest session of our own making."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from harness.errors import HostError
from harness.lab.bare import Bare, Registers
from harness.machine.qtest import Qtest
from harness.model.pci import Bar, BarKind

SLOT = 0x10
LOOP = {0x34: 0x40, 0x40: 0x05, 0x41: 0x50, 0x50: 0x10, 0x51: 0x40}
"""MSI, PCI Express, and MSI again."""
ENDS = {0x34: 0x40, 0x40: 0x01, 0x41: 0x00, 0x44: 0x08, 0x45: 0x00}
"""Power management only, its control and status in D0 with No_Soft_Reset."""


class Configuration:
    """Answers as QEMU does, for one function; bytes it was not given are zero."""

    def __init__(self, content: dict[int, int]) -> None:
        self.content = dict(content)
        self.selected = 0

    def answer(self, line: str) -> str:
        """Return the answer to a command."""
        word, port, *rest = line.split()
        width = {"b": 1, "w": 2, "l": 4}[word[-1]]
        if port == "0xcf8":
            self.selected = int(rest[0], 16)
            return "OK\n"
        assert self.selected >> 11 & 0x1F == SLOT
        offset = (self.selected & 0xFC) + (int(port, 16) & 3)
        if word.startswith("in"):
            held = bytes(self.content.get(offset + n, 0) for n in range(width))
            return f"OK {int.from_bytes(held, 'little'):#x}\n"
        for n, byte in enumerate(int(rest[0], 16).to_bytes(width, "little")):
            self.content[offset + n] = byte
        return "OK\n"


@pytest.fixture
def start() -> Iterator[Callable[[Configuration], Qtest]]:
    """Serve a configuration space; return a session with it."""
    open_sessions: list[Qtest] = []

    def serve(space: Configuration) -> Qtest:
        ours, theirs = socket.socketpair()

        def obey() -> None:
            with theirs, theirs.makefile() as lines:
                for line in lines:
                    theirs.sendall(space.answer(line).encode())

        threading.Thread(target=obey, daemon=True).start()
        open_sessions.append(Qtest(ours))
        return open_sessions[-1]

    yield serve
    for session in open_sessions:
        session.close()


def test_a_capability_is_found_by_its_id(start: Callable[[Configuration], Qtest]) -> None:
    registers = Registers(start(Configuration(LOOP)), SLOT)

    assert registers.capability(0x05) == 0x40
    assert registers.capability(0x10) == 0x50


@pytest.mark.parametrize("content", [LOOP, ENDS, {}], ids=["loop", "end", "empty"])
def test_a_capability_that_is_not_there_is_said(
    start: Callable[[Configuration], Qtest], content: dict[int, int]
) -> None:
    registers = Registers(start(Configuration(content)), SLOT)

    with pytest.raises(HostError, match=r"slot 0x10 has no capability 0x11"):
        registers.capability(0x11)


def test_a_change_leaves_other_bits_alone(start: Callable[[Configuration], Qtest]) -> None:
    space = Configuration(ENDS)
    registers = Registers(start(space), SLOT)

    registers.change(0x44, clear=3, set=3)
    assert registers.read(0x44) == 0x000B

    registers.change(0x44, clear=3)
    assert registers.read(0x44) == 0x0008


def test_places_are_free_and_written() -> None:
    ours, theirs = socket.socketpair()
    bars = (Bar(0, BarKind.MEM32, 4096),)
    with ours, theirs:
        theirs.sendall(b"OK\n" * 8)
        machine = Bare(machine=None, qtest=Qtest(ours))  # type: ignore[arg-type]

        first = machine.program(SLOT, bars)
        second = machine.program(SLOT + 1, bars)

        assert first[0] % 4096 == 0 and first != second
        assert f"outl 0xcfc {first[0]:#x}\n" in theirs.recv(4096).decode()
