"""A gdbstub of ours: a machine of one processor, with memory, that does what a test says."""

from __future__ import annotations

import queue
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness import paths, process
from harness.ap.agent import Agent
from harness.ap.agent_transport import AgentTransport
from harness.ap.rsp import Rsp
from harness.ap.rsp_packet import PacketReader, encode_packet

AGENT_SOURCE = Path(__file__).resolve().parents[2] / "images/ap-agent/agent.c"
KERNEL = 0x0404_0001_8000_0000
"""A PSW mask of the kernel."""


@dataclass
class FakeStub:
    """The stub's side.

    ``run`` is called for ``c`` and ``step`` for one step; they change the machine and return the
    stop reply, or None if it runs on until an interrupt.
    """

    stream: socket.socket
    registers: list[int] = field(default_factory=lambda: [KERNEL, 0x1000, *range(16)])
    memory: dict[int, int] = field(default_factory=dict)
    physical: dict[int, int] = field(default_factory=dict)
    breakpoints: set[int] = field(default_factory=set)
    log: list[str] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    """Answers that are given whatever the machine says."""
    stops: queue.SimpleQueue[Callable[[FakeStub], str]] = field(default_factory=queue.SimpleQueue)
    """What happens while it runs, one for each time that it is let go on."""

    def __post_init__(self) -> None:
        self._mode_physical = False
        self._running = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def put(self, address: int, data: bytes, *, physical: bool = False) -> None:
        """Fill memory."""
        memory = self.physical if physical else self.memory
        memory.update(enumerate(data, start=address))

    def get(self, address: int, size: int) -> bytes:
        """Read memory."""
        return bytes(self.memory[address + at] for at in range(size))

    def happen(self, what: Callable[[FakeStub], str]) -> None:
        """Let this happen in the machine when it runs, now or next."""
        self.stops.put(what)
        with self._lock:
            if self._running:
                self._next_stop()

    def _next_stop(self) -> None:
        if not self.stops.empty():
            self._running = False
            self.say(self.stops.get()(self))

    def say(self, text: str) -> None:
        """Send a packet."""
        self.stream.sendall(encode_packet(text.encode("latin-1")))

    def _serve(self) -> None:
        reader = PacketReader()
        try:
            while data := self.stream.recv(65536):
                with self._lock:
                    for number, piece in enumerate(data.split(b"\x03")):
                        if number and self._running:
                            self._running = False
                            self.say("T02thread:p01.01;")
                        reader.feed(piece)
                        while (packet := reader.next()) is not None:
                            self._take(packet.decode("latin-1"))
        except OSError:
            pass

    def _take(self, text: str) -> None:
        self.log.append(text)
        if text in self.answers:
            self.say(self.answers[text])
        elif text == "c":
            self._running = True
            self._next_stop()
        else:
            self.say(self._answer(text))

    def _answer(self, text: str) -> str:
        memory = self.physical if self._mode_physical else self.memory
        if text == "?":
            return "T05thread:p01.01;"
        if text == "g":
            return "".join(f"{one:016x}" for one in self.registers)
        if text.startswith("P"):
            number, _, value = text[1:].partition("=")
            self.registers[int(number, 16)] = int(value, 16)
            return "OK"
        if text.startswith("vCont;s"):
            self.registers[1] += 2
            return "T05thread:p01.01;"
        if text.startswith("m"):
            address, size = (int(word, 16) for word in text[1:].split(","))
            if not all(address + at in memory for at in range(size)):
                return "E14"
            return "".join(f"{memory[address + at]:02x}" for at in range(size))
        if text.startswith("M"):
            where, _, data = text[1:].partition(":")
            memory.update(enumerate(bytes.fromhex(data), start=int(where.split(",")[0], 16)))
            return "OK"
        if text.startswith(("Z", "z")):
            address = int(text.split(",")[1], 16)
            (self.breakpoints.add if text[0] == "Z" else self.breakpoints.discard)(address)
            return "OK"
        if text.startswith("Qqemu.PhyMemMode:"):
            self._mode_physical = text.endswith("1")
            return "OK"
        return "OK" if text[:1] in ("H", "D") else ""


@pytest.fixture
def stub() -> Iterator[tuple[Rsp, FakeStub]]:
    """A session with a stub of ours."""
    ours, theirs = socket.socketpair()
    fake = FakeStub(theirs)
    rsp = Rsp(ours)
    yield rsp, fake
    rsp.close()
    theirs.close()


@pytest.fixture(scope="session")
def agent_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent, compiled for this computer."""
    program = tmp_path_factory.mktemp("agent") / "trapline-agent"
    subprocess.run(
        ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-std=gnu11",
         "-o", program, AGENT_SOURCE],
        check=True,
    )  # fmt: skip
    return program


@pytest.fixture
def agent(agent_program: Path) -> Iterator[Agent]:
    """A session with an agent on this computer."""
    ours, theirs = socket.socketpair()
    child = process.start([agent_program, "-"], stdin=theirs.fileno(), stdout=theirs.fileno())
    theirs.close()
    session = Agent(ours, name="here")
    try:
        session.greet(timeout=30)
        yield session
    finally:
        session.close()
        process.kill(child)


@pytest.fixture
def transport(agent: Agent) -> AgentTransport:
    """Commands over that agent."""
    return AgentTransport(agent)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say at collection what an empty cache leaves out."""
    images = paths.cache_dir() / "images"
    missing = [
        name
        for name in ("ap-host", "ap-kernel", "ap-qemu")
        if not any((images / name).glob("*/files"))
    ]
    mark = pytest.mark.skipif(
        bool(missing),
        reason=f"the cache has no {', '.join(missing)}: 'trapline images build ap-host'",
    )
    for item in items:
        if item.path == Path(__file__).with_name("test_real_host.py"):
            item.add_marker(mark)
