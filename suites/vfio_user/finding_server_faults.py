"""Defects of QEMU, shown: what it does not survive of a vfio-user server.

Not part of a default run: each of these tests fails or errs on the versions that its page in
docs/findings names. About three minutes, as what hangs is waited for.
"""

import struct

import pytest

from harness.device.faults import (
    Act,
    FaultySession,
    When,
    altered,
    closes,
    faulty,
    late,
    stalls_midway,
)
from harness.device.protocol import CONFIG_REGION, Command
from harness.device.session import Answer
from harness.device.wire import Message
from harness.lab.parts import Parts
from harness.shapes.misbehaving import Misbehaving, ending_with

REGION = When(Command.GET_REGION_INFO, region=0)
CONFIG = When(Command.REGION_READ, region=CONFIG_REGION)
READ = When(Command.REGION_READ, region=0, times=1)
WORD = 0x1234_5678
HEAD = 32
"""Bytes of a region's description before its capabilities."""


def capability(*, following: int = 0, areas: int = 1) -> Act:
    """Answer with a sparse capability, and one that nobody knows before it."""
    strange = struct.pack("<HHI", 99, 1, following or HEAD + 8)
    sparse = struct.pack("<HHIIIQQ", 1, 1, 0, areas, 0, 0, 0x1000)
    full = HEAD + len(strange + sparse)

    def act(session: FaultySession, message: Message, answer: Answer) -> None:
        head = struct.pack("<IIII", full, 0xF, 0, HEAD) + answer.payload[16:HEAD]
        room = int.from_bytes(message.payload[:4], "little")
        payload = (head + strange + sparse)[: HEAD if room < full else full]
        session.well(message, Answer(payload))

    return act


def size_of(size: int) -> Act:
    """Answer with another size of the region."""
    return altered(lambda p: p[:16] + struct.pack("<Q", size) + p[24:])


def bytes_at(changes: dict[int, int]) -> Act:
    """Answer with other bytes of configuration space, where the answer has them."""

    def change(payload: bytes) -> bytes:
        data = bytearray(payload)
        for offset, value in changes.items():
            data[16 + offset : 17 + offset] = bytes([value])[: len(data) - 16 - offset]
        return bytes(data)

    return altered(change)


WHOLE = When(Command.REGION_READ, region=CONFIG_REGION, times=1)
"""The first read, of all of configuration space."""
ONES = altered(lambda payload: payload[:16] + b"\xff" * (len(payload) - 16))
ONES_BUT_NO_LIST = bytes_at(dict.fromkeys(range(4096), 0xFF) | {0x34: 0})
RING = bytes_at({0x06: 0x10, 0x34: 0x40, 0x40: 0x09, 0x41: 0x40})
AT_START = [
    pytest.param(REGION, capability(following=HEAD), id="capability-list-that-never-ends"),
    pytest.param(REGION, capability(following=0x7FFF_FFF0), id="capability-outside"),
    pytest.param(REGION, capability(areas=0xFFFF_FFFF), id="areas-that-are-not-there"),
    pytest.param(REGION, size_of(0x1800), id="bar-size-no-power-of-two"),
    pytest.param(CONFIG, ONES, id="configuration-space-of-ones"),
    pytest.param(WHOLE, RING, id="capabilities-in-a-ring"),
    pytest.param(WHOLE, ONES_BUT_NO_LIST, id="ones-without-a-list"),
    pytest.param(When(Command.DMA_MAP), closes(), id="closed-at-dma-map"),
    pytest.param(When(Command.RESET), closes(), id="closed-at-reset"),
    pytest.param(CONFIG, stalls_midway(1000, 7), id="stalled-in-an-answer"),
]


@pytest.mark.parametrize(("when", "act"), AT_START)
def test_server_is_refused(device_parts: Parts, when: When, act: Act) -> None:
    """QEMU ends with status 1 and says why."""
    ending = ending_with(device_parts.l0_qemu, faulty(when, act))

    assert ending.status == 1, f"status {ending.status}: {ending.said}"


@pytest.mark.parametrize("sent", [16, 18])
def test_answer_that_stops_midway_is_survived(device_parts: Parts, sent: int) -> None:
    """A running machine outlives a server that stalls inside an answer."""
    with Misbehaving(device_parts.l0_qemu, faulty(READ, stalls_midway(sent, 7))) as machine:
        machine.read(0, 0x10)

        assert machine.answers()


def test_late_answer_costs_one_read(device_parts: Parts) -> None:
    """An answer that nobody waits for any more is passed over, and the next one is taken."""
    with Misbehaving(device_parts.l0_qemu, faulty(READ, late(5.5))) as machine:
        machine.write(0, 0x10, WORD)
        machine.read(0, 0x10)

        assert machine.read(0, 0x10) == WORD
