"""The driver in user space that is moved from here, against a program that answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from harness.errors import Unreachable
from harness.guest.system import System
from harness.guest.vfio_driver import Changed, Given, Refused, VfioDriver, drive
from harness.model.pci import Bdf

BDF = Bdf.parse("0000:01:00.0")


@dataclass
class Program:
    """Answers from a list, and writes down what it was told."""

    answers: list[str]
    told: list[str] = field(default_factory=list)
    closed: bool = False

    def send(self, line: str) -> None:
        self.told.append(line)

    def receive(self, *, timeout: float = 30) -> str:
        answer = self.answers.pop(0)
        if answer.startswith("probe: "):
            raise Unreachable("the program ended", seen=answer)
        return answer

    def close(self) -> None:
        self.closed = True


@dataclass
class Somewhere:
    """A system that has such a program."""

    program: Program
    words: tuple[object, ...] = ()
    name: str = "here"

    def converse(self, *words: object) -> Program:
        self.words = words
        return self.program


def driver(*answers: str) -> tuple[VfioDriver, Program]:
    program = Program(list(answers))
    return VfioDriver(BDF, cast(Any, program)), program


def test_a_page_is_mapped_filled_and_read() -> None:
    moved, program = driver("iova=0x5000 phys=0x8107000", "put=2", "data=cafe")

    assert moved.map(0x5000) == 0x810_7000
    moved.put(0x5000, b"\xca\xfe")
    assert moved.get(0x5000, 2) == b"\xca\xfe"
    assert program.told == ["map 0x5000", "put 0x5000 cafe", "get 0x5000 2"]


def test_a_page_is_given_with_an_access_and_filled() -> None:
    moved, program = driver("iova=0x5000 phys=0x8107000 page=3", "put=4096")

    assert moved.give(0x5000, access="r", fill=0xEE) == Given(0x5000, 0x810_7000, 3)
    assert program.told == ["map 0x5000 r", "put 0x5000 " + "ee" * 4096]


def test_what_changed_of_a_page_has_offsets_of_its_neighbours_too() -> None:
    moved, _ = driver("changed=0 first=0 last=0", "changed=12 first=-4 last=7")
    given = Given(0x5000, 0x810_7000, 3)

    assert moved.changed(given) is None
    found = moved.changed(given)
    assert found == Changed(12, -4, 7)
    assert str(found) == "12 bytes from -0x4 to 0x7 changed"


def test_registers_are_written_without_waiting_for_each_answer() -> None:
    moved, program = driver("written=0x01", "error=EINVAL", "written=0x02")

    with pytest.raises(Refused, match="write 0 0x8 4 0x2"):
        moved.write_all(0, [(0, 1), (8, 2), (16, 3)])
    assert program.told == ["write 0 0x0 4 0x1", "write 0 0x8 4 0x2", "write 0 0x10 4 0x3"]
    assert program.answers == []


def test_registers_and_bus_mastering_are_moved_by_one_line_each() -> None:
    moved, program = driver("value=0xba001000", "written=0x05", "command=0x0003", "reset=ok")

    assert moved.read(0, 0x1000) == 0xBA00_1000
    moved.write(2, 8, 5, width=1)
    assert moved.master(False) == 3
    moved.reset()
    assert program.told == ["read 0 0x1000 4", "write 2 0x8 1 0x5", "master 0", "reset"]


def test_interrupts_are_asked_for_and_counted() -> None:
    moved, program = driver("vectors=2", "count=3")

    moved.interrupts("msix", 2)
    assert moved.wait(1, timeout=0.25) == 3
    assert program.told == ["interrupts msix 2", "wait 1 250"]


def test_what_the_kernel_refuses_is_said_with_its_errno() -> None:
    moved, _ = driver("error=ENOTTY")

    with pytest.raises(Refused, match="reset") as refused:
        moved.reset()
    assert refused.value.seen == "ENOTTY"


def test_the_program_is_closed_whatever_happens() -> None:
    program = Program(["ready=yes", "error=EBUSY"])
    somewhere = Somewhere(program)

    with pytest.raises(Refused), drive(cast(System, somewhere), BDF) as moved:
        moved.map(0)

    assert program.closed
    assert somewhere.words == ("vfio", "drive", str(BDF))


def test_a_function_that_is_still_open_is_waited_for() -> None:
    busy = "probe: open /dev/vfio/7 (is 0000:01:00.0 bound to vfio-pci?): Device or resource busy"
    program = Program([busy, busy, "ready=yes", "reset=ok"])

    with drive(cast(System, Somewhere(program)), BDF) as moved:
        moved.reset()

    assert program.answers == []


def test_a_function_that_cannot_be_opened_is_an_error_at_once() -> None:
    program = Program(["probe: open /dev/vfio/7: No such file or directory", "ready=yes"])

    with pytest.raises(Unreachable), drive(cast(System, Somewhere(program)), BDF):
        pass

    assert program.closed
    assert program.answers == ["ready=yes"]
