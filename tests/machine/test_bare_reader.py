"""The firmware that reads and writes what it is told: its image, and how it is given work."""

from __future__ import annotations

from typing import cast

import pytest

from harness.errors import WaitTimeout
from harness.machine.bare_reader import MAILBOX, BareReader, image
from harness.machine.machine import Machine
from harness.machine.qtest import Qtest


class FakeQtest:
    """RAM behind qtest, and a vCPU that answers after some polls."""

    def __init__(self, polls: int) -> None:
        self.memory: dict[int, int] = {}
        self.polls = polls
        self.commands: list[str] = []

    def run(self, commands: list[str]) -> list[str]:
        self.commands += commands
        for command in commands:
            _, address, value = command.split()
            self.memory[int(address, 16)] = int(value, 16)
        return ["" for _ in commands]

    def read(self, address: int) -> int:
        if address == MAILBOX + 4:
            self.polls -= 1
            if self.polls < 0:
                self.memory[MAILBOX + 4] = 0
                self.memory[MAILBOX + 8] = 0x1234
        return self.memory.get(address, 0)


class FakeMachine:
    """Takes note of what it is told over QMP."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.qmp = self

    def execute(self, command: str) -> dict[str, object]:
        self.said.append(command)
        return {}

    def hmp(self, line: str) -> str:
        return f"EIP={line}"

    def check(self) -> None:
        """It is well."""


def reader(polls: int) -> tuple[BareReader, FakeMachine, FakeQtest]:
    machine, qtest = FakeMachine(), FakeQtest(polls)
    return BareReader(cast(Machine, machine), cast(Qtest, qtest)), machine, qtest


def test_image_ends_with_the_reset_vector() -> None:
    data = image()

    assert len(data) == 65536
    # The jump of the reset vector leads to the first instruction: cli.
    target = 0xFFF0 + 3 + int.from_bytes(data[0xFFF1:0xFFF3], "little") & 0xFFFF
    assert data[0xFFF0] == 0xE9 and data[target] == 0xFA


def test_image_knows_where_its_segments_are() -> None:
    data = image()
    # lgdtl %cs:disp16 behind cli; limit and linear base lie there.
    where = int.from_bytes(data[0xFF06:0xFF08], "little")
    limit, base = (data[where : where + 2], data[where + 2 : where + 6])
    table = int.from_bytes(base, "little") & 0xFFFF

    assert int.from_bytes(limit, "little") == 23
    descriptors = [data[table + n : table + n + 8] for n in (8, 16)]
    # Accessed bits set: nobody may write to ROM.
    assert [d[5] & 1 for d in descriptors] == [1, 1]
    assert [d[5] >> 3 & 1 for d in descriptors] == [1, 0]


def test_vcpu_runs_while_there_is_work() -> None:
    bare, machine, qtest = reader(polls=2)

    assert bare.read(0xE0000000, 50) == 0x1234

    assert machine.said == ["cont", "stop"]
    given = ["writel 0x7000 0xe0000000", "writel 0x700c 0x0", "writel 0x7004 0x32"]
    assert qtest.commands == given


def test_what_to_write_is_there_before_the_count_is() -> None:
    bare, machine, qtest = reader(polls=2)

    bare.write(0xE0000000, 0xAB, 50)

    assert machine.said == ["cont", "stop"]
    assert qtest.commands == [
        "writel 0x7000 0xe0000000",
        "writel 0x7008 0xab",
        "writel 0x700c 0x1",
        "writel 0x7004 0x32",
    ]


def test_vcpu_that_does_not_answer_is_stopped_and_told_of() -> None:
    bare, machine, _ = reader(polls=10**9)

    with pytest.raises(WaitTimeout, match="7 reads at 0xe0000000") as failure:
        bare.read(0xE0000000, 7, timeout=0.05)

    assert machine.said[-1] == "stop"
    assert "EIP=info registers" in str(failure.value)
