"""One trapped instruction: whose is it, what does it do, what is written back. Pure.

What may be executed is checked here, first: the kernel's own PQAP, NQAP and DQAP, and the
test of PLO by kvm. Everything else is somebody else's and is left to the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from harness.ap.adapters import ApInstructions
from harness.ap.cpu import Trapped
from harness.ap.instruction import Answer
from harness.errors import ParseError

PQAP, NQAP, DQAP, PLO = 0xB2AF, 0xB2AD, 0xB2AE, 0xEE
_LOW32 = 0xFFFFFFFF
_PLO_TEST = 0x100
"""Bit of GR0: do nothing but say whether the function exists."""
LARGEST_MESSAGE = 1 << 16
"""Bytes of a request that are read (``AP_TAPQ_ML_FIELD`` caps them far below)."""


class Memory(Protocol):
    """Memory of the kernel that trapped."""

    def read(self, address: int, size: int) -> bytes:
        """Return *size* bytes."""


@dataclass(frozen=True, slots=True)
class Executed:
    """The instruction is done.

    :param after: what ``struct pt_regs`` must say now.
    :param writes: memory that it stored to: address, bytes.
    """

    name: str
    after: Trapped
    writes: tuple[tuple[int, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Foreign:
    """It is not ours: the kernel does with it what it always does.

    :param why: in a word or two, for the statistics.
    """

    why: str


def execute(trapped: Trapped, adapters: ApInstructions, memory: Memory) -> Executed | Foreign:
    """Execute the instruction at which *trapped* stands, if it is one of ours."""
    if trapped.in_user_space:
        return Foreign("user space")
    if not trapped.length:
        return Foreign("no instruction length")
    instruction = memory.read(trapped.instruction_address, trapped.length)
    code = int.from_bytes(instruction[:2], "big")
    if code == PQAP:
        return _pqap(trapped, adapters)
    if code == NQAP:
        return _nqap(trapped, adapters, instruction, memory)
    if code == DQAP:
        return _dqap(trapped, adapters, instruction)
    if instruction[0] == PLO and trapped.gprs[0] & _PLO_TEST:
        # TCG has no PLO; kvm asks for each of its 256 functions. "Not installed" is cc 3.
        return Executed("PLO test", trapped.after(3, trapped.gprs))
    return Foreign(instruction.hex())


def _pqap(trapped: Trapped, adapters: ApInstructions) -> Executed:
    gprs = list(trapped.gprs)
    answer = adapters.pqap(gprs[0] & _LOW32, gprs[1], gprs[2])
    writes = ((gprs[2], answer.memory),) if answer.memory else ()
    _take(gprs, answer)
    return Executed("PQAP", trapped.after(answer.cc, gprs), writes)


def _nqap(
    trapped: Trapped, adapters: ApInstructions, instruction: bytes, memory: Memory
) -> Executed:
    gprs = list(trapped.gprs)
    first, second = _pairs(instruction)
    size = min(gprs[second + 1], LARGEST_MESSAGE)
    message = memory.read(gprs[second], size) if size else b""
    psmid = (gprs[first] & _LOW32) << 32 | gprs[first + 1] & _LOW32
    answer = adapters.nqap(gprs[0] & _LOW32, psmid, message)
    _take(gprs, answer)
    return Executed("NQAP", trapped.after(answer.cc, gprs))


def _dqap(trapped: Trapped, adapters: ApInstructions, instruction: bytes) -> Executed:
    gprs = list(trapped.gprs)
    first, second = _pairs(instruction)
    answer = adapters.dqap(gprs[0] & _LOW32, gprs[second + 1])
    writes: tuple[tuple[int, bytes], ...] = ()
    if answer.cc == 0:
        writes = ((gprs[second], answer.memory),) if answer.memory else ()
        gprs[second] += len(answer.memory)
        gprs[second + 1] -= len(answer.memory)
        gprs[first], gprs[first + 1] = answer.psmid >> 32, answer.psmid & _LOW32
    _take(gprs, answer)
    return Executed("DQAP", trapped.after(answer.cc, gprs), writes)


def _pairs(instruction: bytes) -> tuple[int, int]:
    """Return the even registers that an RRE instruction names.

    :raise ParseError: one is odd, which is a specification exception.
    """
    first, second = instruction[3] >> 4, instruction[3] & 15
    if first & 1 or second & 1:
        raise ParseError("an odd register", text=instruction.hex(), where="NQAP or DQAP")
    return first, second


def _take(gprs: list[int], answer: Answer) -> None:
    if answer.status is not None:
        gprs[1] = gprs[1] & ~_LOW32 | answer.status
    if answer.gr2 is not None:
        gprs[2] = answer.gr2
