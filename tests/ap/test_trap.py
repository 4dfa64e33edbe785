"""The trap loop, with a stub of ours as the machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from harness.ap.adapters import Adapters
from harness.ap.cpu import PT_REGS_SIZE
from harness.ap.rsp import GdbFailed, Rsp
from harness.ap.trap import Standing, TrapLoop
from harness.errors import MachineError, ParseError, WaitTimeout
from harness.model.ap.hardware import ApHardware, Card
from harness.model.ap.id import Apqn
from harness.model.ap.mask import ApMask
from harness.wait import wait_until

if TYPE_CHECKING:
    from tests.ap.conftest import FakeStub

KERNEL = 0x0404_0001_8000_0000
USER = KERNEL | 1 << 48

ILLEGAL_OP, RETURN, FRAME, CODE = 0x4000, 0x5000, 0x6000, 0x7000
ELSEWHERE = 0x8000
QUEUE = Apqn(5, 4)
TRAP = "T05thread:p01.01;swbreak:;"


@pytest.fixture
def adapters() -> Adapters:
    return Adapters(ApHardware(cards={5: Card()}, domains=ApMask.of([4])))


@pytest.fixture
def loop(stub: tuple[Rsp, FakeStub], adapters: Adapters) -> Iterator[TrapLoop]:
    """A loop that stands behind a machine which runs."""
    rsp, _ = stub
    rsp.begin()
    loop = TrapLoop(rsp, ILLEGAL_OP, adapters)
    loop.start()
    yield loop
    loop.end()


def trap(stub: FakeStub, instruction: bytes, gr0: int, *, mask: int = KERNEL) -> str:
    """Let the machine trap on *instruction* and come to illegal_op."""
    frame = bytearray(PT_REGS_SIZE)
    frame[8:24] = mask.to_bytes(8, "big") + (CODE + len(instruction)).to_bytes(8, "big")
    frame[24:32] = gr0.to_bytes(8, "big")
    frame[160:162] = len(instruction).to_bytes(2, "big")
    stub.put(FRAME, bytes(frame))
    stub.put(CODE, instruction)
    stub.registers[:2] = [KERNEL, ILLEGAL_OP]
    stub.registers[2 + 2], stub.registers[2 + 14] = FRAME, RETURN
    return TRAP


def until(what: str, stub: FakeStub) -> None:
    """Wait until the stub was told *what*."""
    wait_until(f"the stub hears {what}", lambda: what in stub.log, timeout=10)


def after(stub: FakeStub, goes: int) -> None:
    """Wait until the machine was let go on *goes* times."""
    wait_until("it goes on", lambda: stub.log.count("c") >= goes, timeout=10)


def test_an_ap_instruction_is_executed_and_the_kernel_goes_on_behind_it(
    stub: tuple[Rsp, FakeStub], loop: TrapLoop, adapters: Adapters
) -> None:
    _, fake = stub
    fake.happen(lambda it: trap(it, b"\xb2\xaf\0\0", QUEUE.value))
    after(fake, 2)

    assert fake.registers[1] == RETURN
    assert fake.get(FRAME + 24 + 2 * 8, 8).hex() == "ea0000000dff0007", "GR2 of the frame"
    assert [one.name for one in adapters.since()] == ["TAPQ"]
    assert loop.statistics.executed == {"PQAP": 1}
    assert ILLEGAL_OP in fake.breakpoints


def test_a_foreign_illegal_operation_is_stepped_over_with_the_breakpoint_put_back(
    stub: tuple[Rsp, FakeStub], loop: TrapLoop, adapters: Adapters
) -> None:
    _, fake = stub
    fake.happen(lambda it: trap(it, b"\0\x02", 0))
    after(fake, 2)

    assert fake.registers[1] == ILLEGAL_OP + 2, "one instruction further"
    assert fake.breakpoints == {ILLEGAL_OP}
    assert (loop.statistics.foreign, adapters.mark) == ({"0002": 1}, 0)


def test_an_instruction_of_a_program_is_left_to_the_kernel(
    stub: tuple[Rsp, FakeStub], loop: TrapLoop, adapters: Adapters
) -> None:
    _, fake = stub
    fake.happen(lambda it: trap(it, b"\xb2\xaf\0\0", QUEUE.value, mask=USER))
    after(fake, 2)

    assert (loop.statistics.foreign, adapters.mark) == ({"user space": 1}, 0)


def test_a_program_with_code_at_the_same_address_is_stepped_over(
    stub: tuple[Rsp, FakeStub], loop: TrapLoop
) -> None:
    _, fake = stub

    def program(it: FakeStub) -> str:
        it.registers[:2] = [USER, ILLEGAL_OP]
        return TRAP

    fake.happen(program)
    after(fake, 2)

    assert loop.statistics.foreign == {"user space": 1}
    assert not any(line.startswith("m") for line in fake.log), "its memory is not looked at"


def test_the_first_ap_instruction_is_announced_once(
    stub: tuple[Rsp, FakeStub], adapters: Adapters
) -> None:
    rsp, fake = stub
    rsp.begin()
    seen: list[int] = []
    loop = TrapLoop(rsp, ILLEGAL_OP, adapters, first=lambda _: seen.append(1))
    loop.start()
    for _ in range(3):
        fake.happen(lambda it: trap(it, b"\xb2\xaf\0\0", QUEUE.value))
    after(fake, 4)
    loop.end()

    assert seen == [1]


def test_something_can_be_done_while_the_machine_stands_still(
    stub: tuple[Rsp, FakeStub], loop: TrapLoop
) -> None:
    _, fake = stub
    fake.put(0x10, b"seen")

    assert loop.while_standing(lambda rsp: rsp.read_memory(0x10, 4)) == b"seen"
    after(fake, 2)


def test_what_goes_wrong_then_is_told_to_who_asked_and_the_loop_goes_on(
    stub: tuple[Rsp, FakeStub], loop: TrapLoop
) -> None:
    with pytest.raises(GdbFailed):
        loop.while_standing(lambda rsp: rsp.read_memory(0x10, 4))

    assert loop.while_standing(lambda rsp: 7) == 7
    loop.check()


def test_many_threads_may_ask_at_once(stub: tuple[Rsp, FakeStub], loop: TrapLoop) -> None:
    _, fake = stub
    fake.put(0x10, b"seen")
    found: list[bytes] = []

    def ask() -> None:
        for _ in range(10):
            found.append(loop.while_standing(lambda rsp: rsp.read_memory(0x10, 4)))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"seen"] * 40


def test_a_machine_that_is_held_stands_still_until_it_is_released(
    stub: tuple[Rsp, FakeStub], loop: TrapLoop
) -> None:
    _, fake = stub
    loop.hold()
    goes = fake.log.count("c")

    assert loop.while_standing(lambda rsp: 1) == 1
    assert fake.log.count("c") == goes
    loop.release()
    after(fake, goes + 1)


def test_a_breakpoint_calls_its_action_and_the_instruction_is_executed(
    stub: tuple[Rsp, FakeStub], loop: TrapLoop
) -> None:
    _, fake = stub
    hits: list[int] = []
    loop.at(ELSEWHERE, lambda at: hits.append(at.registers.address))

    def arrive(it: FakeStub) -> str:
        it.registers[:2] = [KERNEL, ELSEWHERE]
        return TRAP

    fake.happen(arrive)
    wait_until("the step", lambda: fake.registers[1] == ELSEWHERE + 2, timeout=10)
    loop.no_more_at(ELSEWHERE)

    assert hits == [ELSEWHERE]
    assert fake.breakpoints == {ILLEGAL_OP}


def test_an_action_that_moves_the_machine_on_has_executed_the_instruction(
    stub: tuple[Rsp, FakeStub], loop: TrapLoop
) -> None:
    _, fake = stub

    def skip(standing: Standing) -> None:
        standing.rsp.write_register(1, ELSEWHERE + 4)

    loop.at(ELSEWHERE, skip)

    def arrive(it: FakeStub) -> str:
        it.registers[:2] = [KERNEL, ELSEWHERE]
        return TRAP

    fake.happen(arrive)
    wait_until("the move", lambda: fake.registers[1] == ELSEWHERE + 4, timeout=10)
    loop.no_more_at(ELSEWHERE)

    assert not any(line.startswith("vCont") for line in fake.log)


def test_a_write_to_a_watched_word_is_seen_while_it_is_watched(
    stub: tuple[Rsp, FakeStub], loop: TrapLoop
) -> None:
    _, fake = stub
    hits: list[int] = []

    def written(it: FakeStub) -> str:
        it.registers[:2] = [KERNEL, 0x1234]
        return "T05thread:p01.01;watch:920;"

    with loop.watching(0x920, 8, lambda at: hits.append(at.registers.address)):
        fake.happen(written)
        wait_until("a hit", lambda: hits, timeout=10)

    assert hits == [0x1234]
    assert fake.log.count("Z2,920,8") == fake.log.count("z2,920,8") == 1


def test_an_instruction_that_cannot_be_executed_ends_the_loop_and_is_told(
    stub: tuple[Rsp, FakeStub], loop: TrapLoop
) -> None:
    _, fake = stub
    fake.happen(lambda it: trap(it, b"\xb2\xad\0\x13", QUEUE.value))

    def told() -> bool:
        try:
            loop.check()
        except ParseError:
            return True
        return False

    wait_until("the loop ends", told, timeout=10)
    with pytest.raises(ParseError, match="odd register"):
        loop.while_standing(lambda rsp: 1)


def test_a_fault_of_who_executes_is_told_with_its_cause(
    stub: tuple[Rsp, FakeStub], adapters: Adapters, monkeypatch: pytest.MonkeyPatch
) -> None:
    rsp, fake = stub
    rsp.begin()

    def broken(self: Adapters, gr0: int, gr1: int, gr2: int) -> None:
        raise ZeroDivisionError("lying adapters")

    monkeypatch.setattr(Adapters, "pqap", broken)
    loop = TrapLoop(rsp, ILLEGAL_OP, adapters)
    loop.start()
    fake.happen(lambda it: trap(it, b"\xb2\xaf\0\0", QUEUE.value))
    with pytest.raises(MachineError, match="lying adapters"):
        wait_until("the end", lambda: loop.check(), timeout=10)
    loop.end()


def test_the_loop_ends_with_its_machine_and_says_so_to_who_asks(
    stub: tuple[Rsp, FakeStub], loop: TrapLoop
) -> None:
    _, fake = stub
    fake.happen(lambda _: "W00")

    with pytest.raises(MachineError, match=r"gone|ended"):
        for _ in range(3):
            loop.while_standing(lambda rsp: 1)
    loop.check()


def test_a_machine_that_does_not_stand_still_misses_the_deadline(
    stub: tuple[Rsp, FakeStub], loop: TrapLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rsp, "interrupt", lambda self: None)

    with pytest.raises(WaitTimeout, match="does not stand still"):
        loop.while_standing(lambda rsp: 1, timeout=0.1)


def test_what_nobody_waits_for_any_more_is_not_done_later(
    stub: tuple[Rsp, FakeStub], loop: TrapLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    with monkeypatch.context() as deaf:
        deaf.setattr(Rsp, "interrupt", lambda self: None)
        with pytest.raises(WaitTimeout):
            loop.while_standing(lambda rsp: done.append("late"), timeout=0.1)

    loop.while_standing(lambda rsp: done.append("now"))

    assert done == ["now"]


def test_ending_lets_go_of_the_machine_and_can_be_done_twice(
    stub: tuple[Rsp, FakeStub], loop: TrapLoop
) -> None:
    loop.end()
    loop.end()


def test_the_same_place_costs_two_trips_from_the_second_time_on(
    stub: tuple[Rsp, FakeStub], loop: TrapLoop, adapters: Adapters
) -> None:
    rsp, fake = stub
    for _ in range(2):
        fake.happen(lambda it: trap(it, b"\xb2\xaf\0\0", QUEUE.value))
    after(fake, 3)
    before = rsp.exchanges
    fake.happen(lambda it: trap(it, b"\xb2\xaf\0\0", QUEUE.value))
    after(fake, 4)

    assert adapters.mark == 3
    assert rsp.exchanges - before == 2


def test_another_instruction_at_the_same_address_is_read_anew(
    stub: tuple[Rsp, FakeStub], loop: TrapLoop, adapters: Adapters
) -> None:
    _, fake = stub
    fake.happen(lambda it: trap(it, b"\xb2\xaf\0\0", QUEUE.value))
    fake.happen(lambda it: trap(it, b"\xb9\x3c\0\0", QUEUE.value))
    after(fake, 3)

    assert (adapters.mark, loop.statistics.foreign) == (1, {"b93c0000": 1})


def test_a_frame_that_is_gone_is_not_missed(
    stub: tuple[Rsp, FakeStub], loop: TrapLoop, adapters: Adapters
) -> None:
    _, fake = stub
    fake.happen(lambda it: trap(it, b"\xb2\xaf\0\0", QUEUE.value))

    def elsewhere(it: FakeStub) -> str:
        it.memory.clear()
        reply = trap(it, b"\xb2\xaf\0\0", QUEUE.value)
        frame = {at + 0x10000: it.memory.pop(at) for at in range(FRAME, FRAME + PT_REGS_SIZE)}
        it.memory.update(frame)
        it.registers[2 + 2] += 0x10000
        return reply

    fake.happen(elsewhere)
    after(fake, 3)

    assert adapters.mark == 2
    loop.check()
