"""Engines of DMA against memory and registers that are a dictionary."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from harness.errors import GuestError
from harness.guest.dma_engine import GOT, SECRET, DmaEngine, EduEngine, NvmeEngine
from harness.guest.vfio_driver import PAGE, Given, VfioDriver
from harness.model.pci import Bdf

TARGET = 0x1234_5000


@dataclass
class Device:
    """A function with memory of its own, driven like `VfioDriver`; a subclass is a device."""

    bdf: Bdf = field(default_factory=lambda: Bdf.parse("0000:01:00.0"))
    memory: dict[int, bytearray] = field(default_factory=dict)
    registers: dict[int, int] = field(default_factory=dict)

    def give(self, iova: int, *, access: str = "rw", fill: int = 0) -> Given:
        self.memory[iova] = bytearray([fill]) * PAGE
        return Given(iova, 0, len(self.memory))

    def put(self, iova: int, data: bytes) -> None:
        self.at(iova)[iova % PAGE : iova % PAGE + len(data)] = data

    def get(self, iova: int, count: int) -> bytes:
        return bytes(self.at(iova)[iova % PAGE : iova % PAGE + count])

    def at(self, iova: int) -> bytearray:
        return self.memory[iova & -PAGE]

    def read(self, region: int, offset: int, *, width: int = 4) -> int:
        return self.registers.get(offset, 0)

    def write(self, region: int, offset: int, value: int, *, width: int = 4) -> None:
        self.registers[offset] = value
        self.obey(offset)

    def write_all(self, region: int, values: Any, *, width: int = 4) -> None:
        for offset, value in values:
            self.write(region, offset, value, width=width)

    def obey(self, offset: int) -> None:
        """Do what the register at *offset* asks for."""


@dataclass
class FakeEdu(Device):
    """Does a transfer at once."""

    buffer: bytearray = field(default_factory=lambda: bytearray(PAGE))

    def obey(self, offset: int) -> None:
        if offset != 0x98:
            return
        source, target, count = (self.registers[at] for at in (0x80, 0x88, 0x90))
        if self.registers[offset] & 2:
            self.put(target, bytes(self.buffer[source - 0x40000 :][:count]))
        else:
            place = target - 0x40000
            self.buffer[place : place + count] = self.get(source, count)
        self.registers[offset] = 0


@dataclass
class FakeNvme(Device):
    """Knows three admin commands; the time stands still."""

    time: int = 0
    done: int = 0
    wrong_number: int = 0

    def obey(self, offset: int) -> None:
        if offset == 0x14:
            self.registers[0x1C] = self.registers[offset] & 1
            self.done = 0
        if offset == 0x1000:
            self.complete()

    def complete(self) -> None:
        entry = self.get(self.registers[0x28] + 64 * (self.done % 32), 64)
        first, word = (
            int.from_bytes(entry[24:32], "little"),
            int.from_bytes(entry[40:44], "little"),
        )
        if entry[0] == 0x02:
            assert word & 0xFF == 2
            data = b"\x00\x43\x01\x64" * ((word >> 16) + 1)
            here = min(len(data), PAGE - first % PAGE)
            self.put(first, data[:here])
            if here < len(data):
                self.put(int.from_bytes(entry[32:40], "little"), data[here:])
        elif entry[0] == 0x09:
            self.time = int.from_bytes(self.get(first, 6), "little")
        else:
            self.put(first, self.time.to_bytes(8, "little"))
        phase = 1 - self.done // 32 % 2
        number = int.from_bytes(entry[2:4], "little") + self.wrong_number
        self.put(self.registers[0x30] + 16 * (self.done % 32) + 12,
                 (number | phase << 16).to_bytes(4, "little"))  # fmt: skip
        self.done += 1


def as_driver(device: Device) -> VfioDriver:
    return cast(VfioDriver, device)


def test_an_edu_writes_what_is_no_byte_of_a_page() -> None:
    device = FakeEdu()
    engine = EduEngine(as_driver(device))
    engine.start()
    device.give(TARGET)

    engine.write(TARGET + 0x100, 8)

    assert device.get(TARGET + 0xF8, 24) == bytes(8) + b"\xc3" * 8 + bytes(8)


def test_an_edu_hands_over_what_it_read() -> None:
    device = FakeEdu()
    engine = EduEngine(as_driver(device))
    engine.start()
    device.give(TARGET)
    device.put(TARGET, SECRET.to_bytes(8, "little"))

    assert engine.read(TARGET) == GOT
    assert engine.read(TARGET + 8) == 0


def check_prepared(device: Device, engine: DmaEngine) -> None:
    engine.start()
    device.give(TARGET)
    go = engine.prepare_write(TARGET)
    assert not any(device.get(TARGET, 8))
    go()
    assert any(device.get(TARGET, 8))


def test_a_prepared_write_waits_for_its_word() -> None:
    edu, nvme = FakeEdu(), FakeNvme()

    check_prepared(edu, EduEngine(as_driver(edu)))
    check_prepared(nvme, NvmeEngine(as_driver(nvme)))


def test_an_nvme_writes_across_two_pages() -> None:
    device = FakeNvme()
    engine = NvmeEngine(as_driver(device))
    engine.start()
    device.give(TARGET)
    device.give(TARGET + PAGE)

    engine.write(TARGET + PAGE - 4, 8)

    assert device.get(TARGET + PAGE - 4, 4) == device.get(TARGET + PAGE, 4) == b"\x00\x43\x01\x64"


def test_an_nvme_goes_round_its_queues() -> None:
    device = FakeNvme()
    engine = NvmeEngine(as_driver(device))
    engine.start()
    device.give(TARGET)
    device.put(TARGET, SECRET.to_bytes(8, "little"))

    assert {engine.read(TARGET) for _ in range(40)} == {GOT}


def test_an_nvme_that_completes_another_command_is_noticed() -> None:
    device = FakeNvme(wrong_number=5)
    engine = NvmeEngine(as_driver(device))
    engine.start()
    device.give(TARGET)

    with pytest.raises(GuestError, match="another command"):
        engine.write(TARGET, 8)
