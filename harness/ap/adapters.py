"""AP adapters as a Python object: what PQAP, NQAP and DQAP answer. No machine is needed.

Whoever traps the instructions (a gdbstub client today; a QEMU with these instructions, or a
plugin of its, another day) asks an `ApInstructions` and writes the `Answer` back. The answers
follow what Linux reads (arch/s390/include/asm/ap.h, drivers/s390/crypto): the architecture
itself is not published, so what passes here agrees with Linux, not with a machine.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

from harness.ap.fault import Fault, Faults
from harness.ap.instruction import Answer, Instruction, PqapFunction, ResponseCode
from harness.model.ap.hardware import ApHardware, Card, Mode
from harness.model.ap.id import Apqn
from harness.model.ap.mask import ApMask

KEPT = 200_000
"""Instructions that the log remembers."""
QUEUE_DEPTH = 7
"""What TAPQ says: one less than the requests that a queue takes."""
_APSC_APXA = 0xC0
"""First byte of QCI: the S and the N bit; no QACT, RC8A or APSB."""
_FUNCTIONS = 0xE2000000
"""Facilities of every queue in TAPQ's GR2: S, M, C and N (APXA)."""
_IRQ_ENABLE = 1 << 47
"""The IR bit in GR1 of AQIC."""


class ApInstructions(Protocol):
    """Who executes AP instructions; any state is its own."""

    def pqap(self, gr0: int, gr1: int, gr2: int) -> Answer:
        """Execute PQAP: GR0 has function code and queue."""

    def nqap(self, gr0: int, psmid: int, message: bytes) -> Answer:
        """Execute NQAP: a request for the queue in GR0."""

    def dqap(self, gr0: int, room: int) -> Answer:
        """Execute DQAP: a reply of at most *room* bytes from the queue in GR0."""


@dataclass(slots=True)
class QueueState:
    """What a queue remembers between instructions."""

    replies: collections.deque[tuple[int, bytes]] = field(default_factory=collections.deque)
    """PSMID and text, oldest first."""
    irq_enabled: bool = False
    resets: int = 0
    """RAPQ and ZAPQ that were done."""


class Adapters:
    """The adapters of one partition. For any number of threads.

    :param hardware: what is there at first; changed by the verbs below, at any time.
    :param note: called with every instruction, from the thread that executes it.
    :param clock: seconds, for the log and for faults that end by time.
    """

    def __init__(
        self,
        hardware: ApHardware,
        *,
        note: Callable[[Instruction], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lock = threading.RLock()
        self._hardware = hardware
        self._queues: dict[Apqn, QueueState] = {}
        self._clock = clock
        self._began = clock()
        self._faults = Faults(clock)
        self._log: collections.deque[Instruction] = collections.deque(maxlen=KEPT)
        self._count = 0
        self.note = note

    # -- what is there ---------------------------------------------------------------------------

    @property
    def hardware(self) -> ApHardware:
        """Cards and domains now."""
        with self._lock:
            return self._hardware

    @hardware.setter
    def hardware(self, hardware: ApHardware) -> None:
        with self._lock:
            before, self._hardware = self._hardware, hardware
            for apqn in list(self._queues):
                # A card that comes back is another card, with empty queues.
                gone = apqn.adapter not in hardware.cards or apqn.domain not in hardware.domains
                if gone or apqn.adapter not in before.cards:
                    del self._queues[apqn]

    def plug(self, adapter: int, card: Card | None = None) -> None:
        """Put *card* at *adapter*, a CEX7 accelerator if nothing is said."""
        with self._lock:
            self.hardware = self._hardware.plugged(adapter, card or Card())

    def unplug(self, adapter: int) -> None:
        """Take the card at *adapter* away."""
        with self._lock:
            self.hardware = self._hardware.unplugged(adapter)

    def change_card(
        self,
        adapter: int,
        *,
        hwtype: int | None = None,
        mode: Mode | None = None,
        configured: bool | None = None,
        checkstopped: bool | None = None,
    ) -> None:
        """Change what is named of the card at *adapter*.

        :raise KeyError: there is none.
        """
        with self._lock:
            was = self._hardware.cards[adapter]
            self.hardware = self._hardware.plugged(
                adapter,
                Card(
                    was.hwtype if hwtype is None else hwtype,
                    was.mode if mode is None else mode,
                    was.configured if configured is None else configured,
                    was.checkstopped if checkstopped is None else checkstopped,
                ),
            )

    def set_domains(self, domains: Iterable[int] | ApMask) -> None:
        """Give every card these usage domains."""
        with self._lock:
            self.hardware = replace(self._hardware, domains=_mask_of(domains))

    def set_control_domains(self, domains: Iterable[int] | ApMask) -> None:
        """Give the partition these control domains."""
        with self._lock:
            self.hardware = replace(self._hardware, control_domains=_mask_of(domains))

    def set_reset(self, apqn: Apqn, code: int | None) -> None:
        """Let resets of *apqn* end with *code*; None: as usual.

        :raise ValueError: the kernel would ask again for ever; use `inject`, which ends.
        """
        with self._lock:
            self.hardware = self._hardware.with_reset(apqn, code)

    def queue(self, apqn: Apqn) -> QueueState:
        """Return what the queue *apqn* remembers; it is live."""
        with self._lock:
            return self._queues.setdefault(apqn, QueueState())

    # -- faults ----------------------------------------------------------------------------------

    def inject(self, fault: Fault) -> Fault:
        """Answer as *fault* says until it ends; return it, to be used as a context manager."""
        with self._lock:
            return self._faults.add(fault)

    def end_faults(self) -> None:
        """End every fault now."""
        with self._lock:
            self._faults.clear()

    # -- what was asked --------------------------------------------------------------------------

    @property
    def mark(self) -> int:
        """A position in the log, for `since`."""
        with self._lock:
            return self._count

    def since(
        self, mark: int = 0, name: str | None = None, apqn: Apqn | None = None
    ) -> tuple[Instruction, ...]:
        """Return the instructions after *mark*; only those called *name*, to *apqn*."""
        with self._lock:
            log = tuple(self._log)
        return tuple(
            one
            for one in log
            if one.number >= mark
            and (name is None or one.name == name)
            and (apqn is None or one.apqn == apqn)
        )

    @property
    def counts(self) -> dict[str, int]:
        """How often each instruction was executed, of those remembered."""
        with self._lock:
            return dict(collections.Counter(one.name for one in self._log))

    # -- instructions ----------------------------------------------------------------------------

    def pqap(self, gr0: int, gr1: int, gr2: int) -> Answer:
        """Execute PQAP."""
        code = gr0 >> 24 & 0xFF
        function = PqapFunction.of(code)
        with self._lock:
            if function is PqapFunction.QCI:
                answer = Answer(0, memory=self._qci())
                return self._noted("QCI", None, gr0, gr1, gr2, answer)
            apqn = Apqn.of(gr0)
            name = function.name if function is not None else f"PQAP fc {code:#04x}"
            response = self._response(apqn, name)
            if function is None:
                answer = self._answer(apqn, ResponseCode.REQ_FAC_NOT_INST)
            elif function is PqapFunction.TAPQ:
                answer = self._answer(apqn, response, gr2=self._describe(apqn))
            elif function is PqapFunction.AQIC:
                answer = self._answer(apqn, self._aqic(apqn, response, gr1))
            else:
                if function is PqapFunction.ZAPQ and response == ResponseCode.NORMAL:
                    response = self._hardware.zapq(apqn)
                if response == ResponseCode.NORMAL:
                    self._reset(apqn)
                answer = self._answer(apqn, response)
            return self._noted(name, apqn, gr0, gr1, gr2, answer)

    def nqap(self, gr0: int, psmid: int, message: bytes) -> Answer:
        """Execute NQAP: every request is answered at once, with an error reply."""
        with self._lock:
            apqn = Apqn.of(gr0)
            response = self._response(apqn, "NQAP")
            queue = self.queue(apqn)
            if response == ResponseCode.NORMAL and len(queue.replies) > QUEUE_DEPTH:
                response = ResponseCode.Q_FULL
            if response == ResponseCode.NORMAL:
                queue.replies.append((psmid, self.reply_to(message)))
            answer = self._answer(apqn, response)
            return self._noted("NQAP", apqn, gr0, psmid, len(message), answer)

    def dqap(self, gr0: int, room: int) -> Answer:
        """Execute DQAP: the oldest reply, cut to *room* bytes."""
        with self._lock:
            apqn = Apqn.of(gr0)
            response = self._response(apqn, "DQAP")
            queue = self.queue(apqn)
            psmid, text = 0, b""
            if response == ResponseCode.NORMAL and not queue.replies:
                response = ResponseCode.NO_PENDING_REPLY
            if response == ResponseCode.NORMAL:
                psmid, text = queue.replies.popleft()
            answer = self._answer(apqn, response, gr2=0, psmid=psmid, memory=text[:room])
            return self._noted("DQAP", apqn, gr0, psmid, room, answer)

    def reply_to(self, message: bytes) -> bytes:
        """Return the reply to a request: type 88, "message malformed".

        zcrypt turns it into EINVAL for who sent it and leaves the queue online
        (drivers/s390/crypto/zcrypt_error.h); every other code would take it offline.
        """
        return bytes.fromhex("0088000022000000") + message[:8].ljust(8, b"\0")

    # -- inside ----------------------------------------------------------------------------------

    def _response(self, apqn: Apqn, name: str) -> int:
        card = self._hardware.cards.get(apqn.adapter)
        if card is None or apqn.domain not in self._hardware.domains:
            return ResponseCode.Q_NOT_AVAIL
        injected = self._faults.response(apqn, name)
        return int(card.response) if injected is None else injected

    def _describe(self, apqn: Apqn) -> int:
        """Return GR2 of TAPQ: facilities, type, highest domain, depth; 0: no such queue."""
        card = self._hardware.cards.get(apqn.adapter)
        if card is None or apqn.domain not in self._hardware.domains:
            return 0
        return (
            (_FUNCTIONS | card.mode) << 32
            | card.hwtype << 24
            | self._hardware.max_domain << 16
            | QUEUE_DEPTH
        )

    def _aqic(self, apqn: Apqn, response: int, gr1: int) -> int:
        if response != ResponseCode.NORMAL:
            return response
        queue, wanted = self.queue(apqn), bool(gr1 & _IRQ_ENABLE)
        if queue.irq_enabled == wanted:
            return ResponseCode.OTHERWISE_CHANGED
        queue.irq_enabled = wanted
        return response

    def _reset(self, apqn: Apqn) -> None:
        queue = self.queue(apqn)
        queue.replies.clear()
        queue.irq_enabled = False
        queue.resets += 1

    def _qci(self) -> bytes:
        masks = self._hardware.configuration
        return (
            bytes([_APSC_APXA, 0, 0, 0, self._hardware.max_adapter, self._hardware.max_domain])
            + bytes(10)
            + b"".join(
                mask.value.to_bytes(32, "big")
                for mask in (masks.adapters, masks.domains, masks.control_domains)
            )
            + bytes(16)
        )

    def _answer(
        self, apqn: Apqn, response: int, *, gr2: int | None = None, psmid: int = 0,
        memory: bytes = b"",
    ) -> Answer:  # fmt: skip
        queue = self._queues.get(apqn) or QueueState()
        flags = 0x40 if queue.replies else 0x80
        flags |= 0x20 if len(queue.replies) > QUEUE_DEPTH else 0
        flags |= 0x01 if queue.irq_enabled else 0
        cc = 0 if response == ResponseCode.NORMAL else 3
        return Answer(cc, status=flags << 24 | response << 16, gr2=gr2, psmid=psmid, memory=memory)

    def _noted(
        self, name: str, apqn: Apqn | None, gr0: int, gr1: int, gr2: int, answer: Answer
    ) -> Answer:
        one = Instruction(
            self._count, self._clock() - self._began, name, apqn, answer.response_code,
            (gr0, gr1, gr2),
        )  # fmt: skip
        self._count += 1
        self._log.append(one)
        if self.note is not None:
            self.note(one)
        return answer


def _mask_of(ids: Iterable[int] | ApMask) -> ApMask:
    return ids if isinstance(ids, ApMask) else ApMask.of(ids)
