"""Which trapped instructions are ours, and what they leave behind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.ap.adapters import Adapters
from harness.ap.cpu import Trapped
from harness.ap.emulate import Executed, Foreign, execute
from harness.ap.instruction import ResponseCode
from harness.errors import ParseError
from harness.model.ap.hardware import ApHardware, Card
from harness.model.ap.id import Apqn
from harness.model.ap.mask import ApMask

KERNEL = 0x0404_3001_8000_0000
USER = KERNEL | 1 << 48
QUEUE = Apqn(5, 4)
PQAP, NQAP, DQAP = b"\xb2\xaf\0\0", b"\xb2\xad\0\x46", b"\xb2\xae\0\x46"
PLO = bytes.fromhex("ee0000000000")
HIGH = 0xABCD_EF01 << 32


class Memory:
    """Memory with an instruction at 0x1000 and a message at 0x2000."""

    def __init__(self, instruction: bytes) -> None:
        self.instruction = instruction
        self.asked: list[tuple[int, int]] = []

    def read(self, address: int, size: int) -> bytes:
        self.asked.append((address, size))
        return self.instruction[:size] if address == 0x1000 else b"m" * size


@pytest.fixture
def adapters() -> Adapters:
    return Adapters(ApHardware(cards={5: Card()}, domains=ApMask.of([4])))


def at(instruction: bytes, *, mask: int = KERNEL, **gprs: int) -> Trapped:
    values = [HIGH | number for number in range(16)]
    for name, value in gprs.items():
        values[int(name[1:])] = value
    return Trapped(mask, 0x1000 + len(instruction), tuple(values), len(instruction))


def test_pqap_sets_the_status_the_description_and_the_condition_code(adapters: Adapters) -> None:
    done = execute(at(PQAP, r0=HIGH | QUEUE.value), adapters, Memory(PQAP))

    assert isinstance(done, Executed) and not done.writes
    assert done.after.gprs[1] == HIGH | 0x8000_0000, "the high half of GR1 stays"
    assert done.after.gprs[2] == 0xEA00_0000_0DFF_0007
    assert done.after.mask == KERNEL & ~(3 << 44)
    assert done.after.gprs[3:] == at(PQAP).gprs[3:]


def test_pqap_of_an_absent_queue_has_condition_code_3(adapters: Adapters) -> None:
    done = execute(at(PQAP, r0=Apqn(6, 4).value), adapters, Memory(PQAP))

    assert isinstance(done, Executed)
    assert done.after.mask >> 44 & 3 == 3
    assert done.after.gprs[1] & 0xFFFFFFFF == 0x8000_0000 | ResponseCode.Q_NOT_AVAIL << 16


def test_qci_stores_at_gr2_and_leaves_the_registers(adapters: Adapters) -> None:
    before = at(PQAP, r0=4 << 24, r2=0x5000)
    done = execute(before, adapters, Memory(PQAP))

    assert isinstance(done, Executed)
    ((address, data),) = done.writes
    assert (address, len(data)) == (0x5000, 128)
    assert done.after.gprs == before.gprs


def test_a_request_is_read_where_the_registers_say_and_its_reply_comes_back(
    adapters: Adapters,
) -> None:
    # psmid in r4 and r5, message in r6 and r7.
    memory = Memory(NQAP)
    sent = at(NQAP, r0=0x4000_0000 | QUEUE.value, r4=0x11, r5=0x22, r6=0x2000, r7=24)
    done = execute(sent, adapters, memory)
    assert isinstance(done, Executed)
    assert (0x2000, 24) in memory.asked and done.after.mask >> 44 & 3 == 0

    wanted = at(DQAP, r0=0x8000_0000 | QUEUE.value, r4=0, r5=0, r6=0x3000, r7=4096)
    got = execute(wanted, adapters, Memory(DQAP))
    assert isinstance(got, Executed)
    ((address, reply),) = got.writes
    assert address == 0x3000 and len(reply) == 16
    assert got.after.gprs[4:8] == (0x11, 0x22, 0x3010, 4080)
    assert got.after.gprs[2] == 0, "nothing of the reply is left"


def test_a_queue_without_a_reply_changes_nothing_but_the_status(adapters: Adapters) -> None:
    before = at(DQAP, r0=QUEUE.value, r4=0, r5=0, r6=0x3000, r7=64)
    done = execute(before, adapters, Memory(DQAP))

    assert isinstance(done, Executed) and not done.writes
    assert done.after.gprs[4:8] == before.gprs[4:8]
    assert done.after.mask >> 44 & 3 == 3


def test_an_endless_request_is_not_read_whole(adapters: Adapters) -> None:
    memory = Memory(NQAP)
    execute(at(NQAP, r0=QUEUE.value, r6=0x2000, r7=1 << 40), adapters, memory)

    assert max(size for _, size in memory.asked) <= 1 << 16


@pytest.mark.parametrize("registers", [0x56, 0x45])
def test_an_odd_register_is_refused(adapters: Adapters, registers: int) -> None:
    instruction = b"\xb2\xad\0" + bytes([registers])
    with pytest.raises(ParseError, match="odd register"):
        execute(at(instruction, r0=QUEUE.value), adapters, Memory(instruction))


def test_the_test_of_a_plo_function_says_that_it_is_not_installed(adapters: Adapters) -> None:
    before = at(PLO, r0=0x100 | 17)
    done = execute(before, adapters, Memory(PLO))

    assert isinstance(done, Executed)
    assert (done.after.mask >> 44 & 3, done.after.gprs) == (3, before.gprs)


@pytest.mark.parametrize(
    ("trapped", "why"),
    [
        (at(PQAP, mask=USER, r0=QUEUE.value), "user space"),
        (at(PLO, r0=17), "ee0000000000"),
        (at(b"\0\x02"), "0002"),
        (at(b"\xb9\x3c\0\0"), "b93c0000"),
        (Trapped(KERNEL, 0x1000, (0,) * 16, 0), "no instruction length"),
    ],
)
def test_what_is_not_ours_is_left_alone(adapters: Adapters, trapped: Trapped, why: str) -> None:
    found = {"0002": b"\0\x02", "b93c0000": b"\xb9\x3c\0\0", "ee0000000000": PLO}
    outcome = execute(trapped, adapters, Memory(found.get(why, PQAP)))

    assert outcome == Foreign(why)
    assert adapters.mark == 0


@given(st.binary(min_size=6, max_size=6), st.sampled_from([2, 4, 6]))
def test_only_four_opcodes_are_ever_executed(instruction: bytes, length: int) -> None:
    adapters = Adapters(ApHardware())
    trapped = Trapped(KERNEL, 0x1000 + length, (0,) * 16, length)
    try:
        outcome = execute(trapped, adapters, Memory(instruction))
    except ParseError:
        outcome = Executed("odd", trapped)
    ours = instruction[:2] in (b"\xb2\xaf", b"\xb2\xad", b"\xb2\xae")
    assert isinstance(outcome, Executed) == ours
