"""The bare driver against a function that lives in a dictionary."""

from __future__ import annotations

import struct
from typing import cast

import pytest

from harness.errors import MachineError
from harness.machine.bare_pci import ARM_VIRT, Q35, BarePci, Board, with_qtest
from harness.machine.bare_virtio import ACCESS_PLATFORM, RINGS, VERSION_1, BareVirtio
from harness.machine.command import MachineSpec
from harness.machine.qtest import Qtest
from harness.model.pci import Bdf

PORT, VIRTIO = Bdf(0, 0, 8, 0), Bdf(0, 1, 0, 0)


class FakeQtest:
    """Memory of a machine; what the driver writes is kept, in order."""

    def __init__(self, board: Board, offered: int) -> None:
        self.memory: dict[int, int] = {}
        self.writes: list[tuple[int, int]] = []
        self.board = board
        self.offered = offered
        self.common = board.window + (1 << 20)

    def config(self, bdf: Bdf, offset: int, data: bytes) -> None:
        base = self.board.ecam + (bdf.bus << 20 | bdf.device << 15) + offset
        self.memory |= {base + n: byte for n, byte in enumerate(data)}

    def run(self, commands: list[str]) -> list[str]:
        return ["" for _ in commands]

    def write(self, address: int, value: int, width: int = 4) -> None:
        self.writes.append((address, value))
        for n in range(width):
            self.memory[address + n] = value >> 8 * n & 0xFF

    def put(self, address: int, data: bytes) -> None:
        self.memory |= {address + n: byte for n, byte in enumerate(data)}

    def read(self, address: int, width: int = 4) -> int:
        if address == self.common + 4:
            return self.offered >> 32 * self.memory.get(self.common, 0) & 0xFFFF_FFFF
        return sum(self.memory.get(address + n, 0) << 8 * n for n in range(width))


def function_of(board: Board, offered: int = VERSION_1) -> tuple[FakeQtest, BarePci]:
    """A function with an MSI-X capability, then virtio's common structure, and ATS."""
    fake = FakeQtest(board, offered)
    fake.config(VIRTIO, 0x34, b"\x40")
    fake.config(VIRTIO, 0x40, b"\x11\x50\0\0")
    fake.config(VIRTIO, 0x50, bytes([9, 0, 16, 1, 4, 0, 0, 0]) + bytes(8))
    fake.config(VIRTIO, 0x100, (0x0001 | 1 << 16 | 0x140 << 20).to_bytes(4, "little"))
    fake.config(VIRTIO, 0x140, (0x000F | 1 << 16).to_bytes(4, "little"))
    return fake, BarePci(cast(Qtest, fake), board)


@pytest.mark.parametrize("board", [Q35, ARM_VIRT])
def test_a_function_is_started(board: Board) -> None:
    fake, pci = function_of(board, VERSION_1 | ACCESS_PLATFORM | 1)

    came = BareVirtio(pci, PORT, VIRTIO).start()

    assert came.runs
    assert came.platform
    taken = [value for address, value in fake.writes if address == fake.common + 0x0C]
    assert taken == [0, (VERSION_1 | ACCESS_PLATFORM) >> 32]


def test_features_that_are_not_offered_are_not_taken() -> None:
    fake, pci = function_of(Q35)

    came = BareVirtio(pci, PORT, VIRTIO).start()

    assert not came.platform
    assert [v for a, v in fake.writes if a == fake.common + 0x0C] == [0, VERSION_1 >> 32]


def test_queues_lie_in_memory_and_beside_each_other() -> None:
    fake, pci = function_of(ARM_VIRT)

    BareVirtio(pci, PORT, VIRTIO).start(queues=2)

    rings = [v for a, v in fake.writes if a == fake.common + 0x20]
    assert rings == [ARM_VIRT.ram + 0x10_0000, ARM_VIRT.ram + 0x11_0000]


def test_translation_services_are_found_behind_other_capabilities() -> None:
    fake, pci = function_of(Q35)

    BareVirtio(pci, PORT, VIRTIO).enable_ats()

    assert fake.writes[-1] == (Q35.ecam + (1 << 20) + 0x146, 1 << 15)


def test_a_function_without_them_is_told() -> None:
    _, pci = function_of(Q35)

    with pytest.raises(MachineError, match="no extended capability 0x0010"):
        pci.extended(VIRTIO, 0x10)


def test_another_function_is_told() -> None:
    fake, pci = function_of(Q35)
    fake.config(VIRTIO, 0x50, b"\x05")

    with pytest.raises(MachineError, match="no modern virtio"):
        BareVirtio(pci, PORT, VIRTIO)


def test_a_bridge_leads_to_its_bus_with_two_windows() -> None:
    _, pci = function_of(Q35)

    pci.open_port(PORT)

    assert pci.read(PORT, 0x18) == 0x0001_0100
    assert pci.read(PORT, 0x20) == 0xE000_E000
    assert pci.read(PORT, 0x24) == 0xE011_E011


def test_a_machine_gets_a_qtest_socket() -> None:
    spec = with_qtest(MachineSpec("m"))

    assert spec.streams == ("qtest",)
    assert spec.extra[:2] == ("-qtest", "chardev:qtest")


def test_a_buffer_is_offered_and_told_of() -> None:
    fake, pci = function_of(Q35)
    fake.config(VIRTIO, 0x50, bytes([9, 0x68, 16, 1, 4, 0, 0, 0]) + bytes(8))
    notify = bytes([9, 0, 20, 2, 4, 0, 0, 0, 0, 0x30, 0, 0, 0, 0x10, 0, 0, 4, 0, 0, 0])
    fake.config(VIRTIO, 0x68, notify)
    driver = BareVirtio(pci, PORT, VIRTIO)
    for n, byte in enumerate((3).to_bytes(2, "little")):
        fake.memory[fake.common + 0x1E + n] = byte  # place of the queue's doorbell
    queue = driver.queue(1, lambda at: at + 0x40_0000)

    queue.offer(0x18_0000, 0x1000, writable=True)

    base = RINGS + 0x1_0000 + 0x40_0000
    descriptor = bytes(fake.memory[base + n] for n in range(16))
    assert descriptor == struct.pack("<QIHH", 0x18_0000, 0x1000, 2, 0)
    available = [fake.memory[base + 0x4000 + n] for n in range(6)]
    assert available == [1, 0, 1, 0, 0, 0]
    assert fake.writes[-1] == (fake.common + 0x3000 + 3 * 4, 1)
    assert not queue.returned
    fake.memory[base + 0x8002] = 1
    assert queue.returned
