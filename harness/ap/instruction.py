"""AP instructions, and what is answered to them. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from harness.model.ap.id import Apqn


class PqapFunction(enum.IntEnum):
    """Function codes of PQAP that are modelled."""

    TAPQ = 0
    RAPQ = 1
    ZAPQ = 2
    AQIC = 3
    QCI = 4

    @classmethod
    def of(cls, code: int) -> PqapFunction | None:
        """Return the function with *code*, None for one that is not modelled."""
        return cls(code) if code in cls._value2member_map_ else None


class ResponseCode(enum.IntEnum):
    """Response codes (arch/s390/include/asm/ap.h and drivers/s390/crypto/ap_bus.h)."""

    NORMAL = 0x00
    Q_NOT_AVAIL = 0x01
    RESET_IN_PROGRESS = 0x02
    DECONFIGURED = 0x03
    CHECKSTOPPED = 0x04
    BUSY = 0x05
    INVALID_ADDRESS = 0x06
    OTHERWISE_CHANGED = 0x07
    INVALID_GISA = 0x08
    STATE_CHANGE_IN_PROGRESS = 0x0A
    Q_FULL = 0x10
    NO_PENDING_REPLY = 0x10
    INDEX_TOO_BIG = 0x11
    MESSAGE_TOO_BIG = 0x15
    REQ_FAC_NOT_INST = 0x16


@dataclass(frozen=True, slots=True)
class Answer:
    """What an instruction leaves behind.

    :param cc: condition code.
    :param status: AP queue status, the low half of GR1; None leaves GR1 alone.
    :param gr2: GR2; None leaves it alone.
    :param psmid: of the reply that DQAP took.
    :param memory: what it stores: at GR2 for QCI, in the buffer for DQAP.
    """

    cc: int
    status: int | None = None
    gr2: int | None = None
    psmid: int = 0
    memory: bytes = b""

    @property
    def response_code(self) -> int:
        """The response code in the status; 0 if there is none."""
        return 0 if self.status is None else self.status >> 16 & 0xFF


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction that was executed.

    :param number: of the adapters' instructions, from 0.
    :param seconds: since the adapters were made.
    :param name: ``TAPQ``, ``RAPQ``, ``ZAPQ``, ``AQIC``, ``QCI``, ``NQAP``, ``DQAP``.
    :param apqn: the queue; None for QCI.
    :param operands: GR0, GR1 and GR2 before it.
    """

    number: int
    seconds: float
    name: str
    apqn: Apqn | None
    response_code: int
    operands: tuple[int, int, int]

    def __str__(self) -> str:
        where = f" {self.apqn}" if self.apqn is not None else ""
        return f"{self.seconds:.6f} {self.name}{where} rc {self.response_code:#04x}"
