"""An s390x processor as the gdbstub shows it, and the registers a trap has saved. Pure.

Register order: QEMU's ``gdb-xml/s390x-core64.xml``. Layout of ``struct pt_regs``:
arch/s390/include/asm/ptrace.h, the same from 6.1 to 7.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.errors import ParseError

PSW_ADDRESS = 1
"""Number of the register that holds the address of the next instruction."""
GPR = 2
"""Number of general register 0."""

_MASK64 = (1 << 64) - 1
_PROBLEM_STATE = 1 << (63 - 15)
_CONDITION_CODE = 63 - 19
_PSW_AT, _GPRS_AT, _CODE_AT = 8, 24, 160
PT_REGS_SIZE = 176
"""Bytes of ``struct pt_regs`` that are read."""


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "big")


@dataclass(frozen=True, slots=True)
class Registers:
    """PSW and general registers of a processor that stands still."""

    mask: int
    address: int
    gprs: tuple[int, ...]

    @classmethod
    def parse(cls, data: bytes) -> Registers:
        """Read what the gdbstub answers to ``g``.

        :raise ParseError: too short for an s390x processor.
        """
        if len(data) < 18 * 8:
            raise ParseError(
                "not the registers of an s390x", text=data.hex()[:200], where="gdbstub"
            )
        return cls(_u64(data, 0), _u64(data, 8), tuple(_u64(data, at) for at in range(16, 144, 8)))

    @property
    def in_user_space(self) -> bool:
        """Say whether it is in problem state."""
        return bool(self.mask & _PROBLEM_STATE)


@dataclass(frozen=True, slots=True)
class Trapped:
    """What ``struct pt_regs`` says of the code that trapped."""

    mask: int
    address: int
    """Of the instruction behind the one that trapped."""
    gprs: tuple[int, ...]
    length: int
    """Of the instruction that trapped, bytes: 2, 4 or 6; 0 if the processor did not say."""

    @classmethod
    def parse(cls, data: bytes) -> Trapped:
        """Read ``struct pt_regs``.

        :raise ParseError: too short, or the instruction has a length that none has.
        """
        if len(data) < PT_REGS_SIZE:
            raise ParseError("half a struct pt_regs", text=data.hex(), where="gdbstub")
        length = int.from_bytes(data[_CODE_AT : _CODE_AT + 2], "big")
        if length not in (0, 2, 4, 6):
            raise ParseError(
                f"struct pt_regs has another layout: instruction of {length} bytes",
                text=data.hex(), where="gdbstub",
            )  # fmt: skip
        gprs = tuple(_u64(data, at) for at in range(_GPRS_AT, _GPRS_AT + 128, 8))
        return cls(_u64(data, _PSW_AT), _u64(data, _PSW_AT + 8), gprs, length)

    @property
    def in_user_space(self) -> bool:
        """Say whether a program trapped, not the kernel."""
        return bool(self.mask & _PROBLEM_STATE)

    @property
    def instruction_address(self) -> int:
        """Where the instruction that trapped is."""
        return self.address - self.length

    def after(self, condition_code: int, gprs: Sequence[int]) -> Trapped:
        """Return what is there when the instruction has been executed."""
        mask = self.mask & ~(3 << _CONDITION_CODE) | (condition_code & 3) << _CONDITION_CODE
        return replace(self, mask=mask, gprs=tuple(value & _MASK64 for value in gprs))

    def changed_part(self) -> tuple[int, bytes]:
        """Return offset and content of PSW and general registers, to be written back."""
        words = (self.mask, self.address, *self.gprs)
        return _PSW_AT, b"".join(word.to_bytes(8, "big") for word in words)
