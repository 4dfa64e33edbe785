"""A device with something of everything, served, and a client of it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator

import pytest

from harness.device.client import Client
from harness.device.device import Device
from harness.device.registers import register
from harness.device.server import Served, serve
from harness.device.spec import (
    AerSpec,
    BarSpec,
    ExpressSpec,
    IoEventSpec,
    MsiSpec,
    MsixSpec,
    PowerSpec,
)
from harness.model.address import AddressRange
from harness.model.pci import BarKind, PciId


class Sample(Device):
    """Every kind of BAR, every kind of interrupt, a counter and a failing register."""

    id = PciId(0x1234, 0x5A3D)
    class_code = 0x0B4000
    revision = 3
    subsystem = PciId(0x1AF4, 0x1100)
    bars = (
        BarSpec(0, BarKind.MEM32, 0x1000),
        BarSpec(1, BarKind.IO, 0x20),
        BarSpec(2, BarKind.MEM64, 0x4000, prefetchable=True, direct=True),
        BarSpec(
            4,
            BarKind.MEM64,
            0x8000,
            direct=(AddressRange(0x1000, 0x1000), AddressRange(0x4000, 0x2000)),
        ),
    )
    interrupt_pin = 1
    obeys_bus_master = False
    msi = MsiSpec(4)
    msix = MsixSpec(8, table_bar=0, table_offset=0x800, pba_bar=0, pba_offset=0xC00)
    express = ExpressSpec(flr=True)
    power = PowerSpec(soft_reset=True)
    aer = AerSpec()
    rom = b"\x55\xaa" + b"rom" * 1000
    ioevents = (
        IoEventSpec(0, 0x40, 4),
        IoEventSpec(0, 0x44, 4, datamatch=7),
        IoEventSpec(1, 0, 2),
    )

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.writes: deque[tuple[int, int, int, int]] = deque(maxlen=1000)
        self.events: list[str] = []

    @register(bar=0, offset=0x10)
    def counter(self) -> int:
        return self.total

    @counter.write
    def add(self, value: int) -> None:
        self.total += value

    @register(bar=0, offset=0x20)
    def broken(self) -> int:
        raise ValueError("this register is broken")

    def write(self, bar: int, offset: int, width: int, value: int) -> None:
        self.writes.append((bar, offset, width, value))
        super().write(bar, offset, width, value)

    def reset(self) -> None:
        self.total = 0

    def connected(self) -> None:
        self.events.append("connected")

    def disconnected(self) -> None:
        self.events.append("disconnected")


@pytest.fixture
def device() -> Sample:
    return Sample()


@pytest.fixture
def served(device: Sample) -> Iterator[Served]:
    before = open_descriptors()
    with serve(device) as server:
        yield server
    assert open_descriptors() == before, "the server left descriptors open"


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.socket) as connection:
        yield connection


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
