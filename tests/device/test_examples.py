"""The example of docs/python-devices.md does what the page says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.commands.device import load_device
from harness.device import protocol
from harness.device.client import Client
from harness.device.server import Served, serve

EXAMPLE = Path(__file__).parents[2] / "examples/doorbell.py"
BASE = 0x10_0000


@pytest.fixture
def doorbell() -> Iterator[Served]:
    with serve(load_device(EXAMPLE)()) as served:
        yield served


def ring(client: Client, length: int) -> None:
    client.write(0, 0x00, BASE.to_bytes(8, "little"))
    client.write(0, 0x08, length.to_bytes(4, "little"))
    client.write(0, 0x10, bytes(4))
    while not client.read(2, 0, 4)[0]:
        client.serve_for(0.01)


def test_it_turns_text_into_capitals_and_interrupts(doorbell: Served) -> None:
    event = os.eventfd(0, os.EFD_NONBLOCK)
    with Client(doorbell.socket) as client:
        client.write(protocol.CONFIG_REGION, 4, b"\6\0")  # memory, bus master
        client.dma_map(BASE, 0x1000)
        client.memory[BASE][:5] = b"hello"
        client.set_irqs(protocol.MSIX, protocol.SET_EVENTFD | protocol.SET_TRIGGER, fds=[event])

        ring(client, 5)
        client.info()

        assert client.memory[BASE][:5] == b"HELLO"
        assert os.eventfd_read(event) == 1
        assert client.read(0, 0x10, 4) == (1).to_bytes(4, "little")
    os.close(event)
    assert not doorbell.failures


def test_it_forgets_at_a_reset(doorbell: Served) -> None:
    with Client(doorbell.socket) as client:
        client.write(0, 0, b"12345678")
        client.reset()

        assert client.read(0, 0, 8) == bytes(8)


def test_it_is_short() -> None:
    """Forty lines of code: what a reader has to take in before the first guest boots."""
    lines = EXAMPLE.read_text().splitlines()
    code = [line for line in lines if line.strip() and not line.lstrip().startswith(("#", '"""'))]

    assert len(code) <= 40
