"""The trap loop: a thread that stands behind a machine and executes its AP instructions.

Under TCG an AP instruction is an illegal operation, and the kernel hands every one of those to
one function, ``illegal_op(struct pt_regs *)``. A breakpoint there sees them all, also those of
modules that are loaded later. What is executed returns to the caller of that function with the
registers changed; what is not ours is stepped over and goes on as if nobody had looked.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from harness.ap.adapters import ApInstructions
from harness.ap.cpu import PSW_ADDRESS, PT_REGS_SIZE, Registers, Trapped
from harness.ap.emulate import Foreign, execute
from harness.ap.rsp import GdbGone, Rsp, Stop, bytes_in, register_packet, write_packet
from harness.errors import HarnessError, MachineError, WaitTimeout

log = logging.getLogger(__name__)

T = TypeVar("T")

BREAKPOINT_LENGTH = 2
_RETURN, _ARGUMENT = 14, 2
_LOOK = 0.5
"""Seconds between two looks at whether the loop shall end."""
_KEPT = 100_000
_WATCHED = ("watch", "awatch", "rwatch")

AtBreakpoint = Callable[["Standing"], None]


@dataclass(slots=True)
class Statistics:
    """What the loop did."""

    executed: collections.Counter[str] = field(default_factory=collections.Counter)
    foreign: collections.Counter[str] = field(default_factory=collections.Counter)
    """Illegal operations that were left to the kernel, by reason or opcode."""
    seconds: collections.deque[float] = field(
        default_factory=lambda: collections.deque(maxlen=_KEPT)
    )
    """From each stop until the machine went on."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A machine that stands still at a breakpoint, for who put that there."""

    rsp: Rsp
    stop: Stop
    registers: Registers

    def read(self, address: int, size: int) -> bytes:
        """Return virtual memory of the processor that stopped."""
        return self.rsp.read_memory(address, size)

    def read_physical(self, address: int, size: int) -> bytes:
        """Return physical memory."""
        with self.rsp.physical():
            return self.rsp.read_memory(address, size)

    def write_physical(self, address: int, data: bytes) -> None:
        """Write physical memory."""
        with self.rsp.physical():
            self.rsp.write_memory(address, data)


@dataclass(slots=True)
class _Order:
    """Something to be done while the machine stands still."""

    action: Callable[[Rsp], object]
    done: threading.Event = field(default_factory=threading.Event)
    result: object = None
    error: BaseException | None = None
    holds: bool | None = None
    """Let the machine stand still from here on, or not any more; None: as it is."""
    _claim: threading.Lock = field(default_factory=threading.Lock)

    def claim(self) -> bool:
        """Return True to the first who asks: who does it, or who gave up waiting for it."""
        return self._claim.acquire(blocking=False)


class TrapLoop:
    """Executes the AP instructions of one machine.

    :param rsp: a session that has begun; the machine stands still. Ours from here on.
    :param illegal_op: address of that function in the kernel.
    :param adapters: who executes.
    :param first: done once, at the first AP instruction, when the kernel's memory is there.
    """

    def __init__(
        self,
        rsp: Rsp,
        illegal_op: int,
        adapters: ApInstructions,
        *,
        name: str = "AP host",
        first: Callable[[Rsp], None] | None = None,
    ) -> None:
        self.statistics = Statistics()
        self.adapters = adapters
        self.name = name
        self._rsp = rsp
        self._illegal_op = illegal_op
        self._first = first
        self._breakpoints: dict[int, AtBreakpoint] = {}
        self._watchpoints: dict[int, AtBreakpoint] = {}
        self._likely: tuple[tuple[int, int], ...] = ()
        """Where the last trap was: address and size of its frame, of its instruction."""
        self._orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._ending = False
        self._held = False
        self._thread = threading.Thread(target=self._run, name=f"trap-{name}", daemon=True)

    # -- for other threads ------------------------------------------------------------------------

    def start(self) -> None:
        """Put the breakpoint, let the machine go on, and stand by."""
        self._rsp.add_breakpoint(self._illegal_op, length=BREAKPOINT_LENGTH)
        self._thread.start()

    def check(self) -> None:
        """Raise what ended the loop, if that was not the machine's end. A guard for waits.

        :raise MachineError: an instruction could not be executed.
        """
        error = self._error
        if error is None or self._ending:
            return
        if isinstance(error, HarnessError):
            raise error
        raise MachineError(
            f"{self.name}: the trap loop ended", seen=repr(error), hint="a fault of the harness"
        ) from error

    def while_standing(self, action: Callable[[Rsp], T], *, timeout: float = 15) -> T:
        """Have the machine stand still for *action* and go on as before; return the result.

        :raise WaitTimeout: it did not come to that in *timeout* seconds.
        """
        return self._ordered(action, timeout=timeout)

    def hold(self, *, timeout: float = 15) -> None:
        """Have the machine stand still until `release`."""
        self._ordered(lambda rsp: None, holds=True, timeout=timeout)

    def release(self) -> None:
        """Let it go on after `hold`."""
        if self._held:
            self._ordered(lambda rsp: None, holds=False, timeout=15)

    def at(self, address: int, action: AtBreakpoint, *, timeout: float = 15) -> None:
        """Call *action* whenever the machine comes to *address*, which is then executed.

        In the thread of the loop, so it must be quick. An *action* that moves the PSW address
        has executed the instruction itself.
        """

        def put(rsp: Rsp) -> None:
            rsp.add_breakpoint(address, length=BREAKPOINT_LENGTH)
            self._breakpoints[address] = action

        self.while_standing(put, timeout=timeout)

    def no_more_at(self, address: int, *, timeout: float = 15) -> None:
        """Take what `at` put away again."""

        def take(rsp: Rsp) -> None:
            if self._breakpoints.pop(address, None) is not None:
                rsp.remove_breakpoint(address, length=BREAKPOINT_LENGTH)

        self.while_standing(take, timeout=timeout)

    @contextlib.contextmanager
    def watching(self, address: int, length: int, action: AtBreakpoint) -> Iterator[None]:
        """Call *action* after each write to *length* bytes at *address* while inside."""

        def put(rsp: Rsp) -> None:
            rsp.add_watchpoint(address, length)
            self._watchpoints[address] = action

        def take(rsp: Rsp) -> None:
            self._watchpoints.pop(address)
            rsp.remove_watchpoint(address, length)

        self.while_standing(put)
        try:
            yield
        finally:
            self.while_standing(take)

    def end(self) -> None:
        """Let go of the machine, which goes on by itself. Callable twice, never raises."""
        self._ending = True
        if self._thread.is_alive() and not self._held:
            try:
                self._rsp.interrupt()
            except HarnessError as error:
                log.debug("%s: %s", self.name, error.summary)
        self._orders.put(_Order(lambda rsp: None))
        if self._thread.ident is not None:
            self._thread.join(5)
        if self._thread.is_alive():
            self._rsp.close()
        else:
            self._rsp.detach()

    def _ordered(
        self, action: Callable[[Rsp], T], *, timeout: float, holds: bool | None = None
    ) -> T:
        self.check()
        result: list[T] = []
        order = _Order(lambda rsp: result.append(action(rsp)), holds=holds)
        self._orders.put(order)
        if not self._held:
            self._rsp.interrupt()
        deadline = time.monotonic() + timeout
        while not order.done.wait(0.25):
            self.check()
            if not self._thread.is_alive():
                raise MachineError(f"{self.name}: the trap loop has ended with its machine")
            if time.monotonic() > deadline and order.claim():
                raise WaitTimeout(f"{self.name}: the machine does not stand still")
        if order.error is not None:
            raise order.error
        return result[0]

    # -- the loop ---------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._rsp.resume()
            while not self._ending:
                if not self._orders.empty():  # whose interrupt may have come before it ran
                    self._rsp.interrupt()
                stop = self._rsp.wait_stop(timeout=_LOOK)
                if stop is None:
                    continue
                began = time.perf_counter()
                last = self._at_trap(stop) if stop.is_trap else []
                if self._ending or self._held or not self._orders.empty():
                    self._rsp.do_all(last)
                    last = []
                    if not self._obey():
                        break
                self._rsp.resume(after=last)
                self.statistics.seconds.append(time.perf_counter() - began)
        except GdbGone as error:  # the machine ended, which its own guards tell
            log.debug("%s: %s", self.name, error)
        except BaseException as error:
            log.error("%s: the trap loop ended: %s", self.name, error)
            self._error = error

    def _obey(self) -> bool:
        """Do what was ordered; return False if the loop shall end."""
        while True:
            if self._ending:
                return False
            try:
                order = (
                    self._orders.get(timeout=_LOOK) if self._held else self._orders.get_nowait()
                )
            except queue.Empty:
                if self._held:
                    continue
                return True
            if not order.claim():
                continue  # nobody waits for it any more
            try:
                order.action(self._rsp)
            except BaseException as error:
                order.error = error
            if order.holds is not None:
                self._held = order.holds
            order.done.set()

    def _at_trap(self, stop: Stop) -> list[str]:
        """Do what is to be done at this stop; return the packets that are to be sent last.

        Each round trip is two switches between processes, which on a busy computer take most
        of the time. So where the last trap was is read again along with the registers.
        """
        rsp, memory = self._rsp, _KernelMemory(self._rsp)
        rsp.select(stop.thread)
        answers = rsp.ask_all(["g", *(f"m{at:x},{size:x}" for at, size in self._likely)])
        for place, answer in zip(self._likely, answers[1:], strict=True):
            memory.expect(place, bytes_in(answer))
        registers = Registers.parse(bytes_in(answers[0]) or b"")
        watched = next((stop.fields[key] for key in _WATCHED if key in stop.fields), None)
        if watched is not None:
            action = self._watchpoints.get(int(watched, 16))
            if action is not None:
                action(Standing(rsp, stop, registers))
        elif registers.address == self._illegal_op:
            return self._at_illegal_op(registers, memory)
        elif registers.address in self._breakpoints:
            self._at_breakpoint(stop, registers)
        else:
            # A breakpoint that was taken away meanwhile.
            log.debug("%s: stopped at %#x: %s", self.name, registers.address, stop.fields)
        return []

    def _at_illegal_op(self, registers: Registers, memory: _KernelMemory) -> list[str]:
        # A breakpoint is a bare address, and programs have addresses of their own.
        if registers.in_user_space:
            self.statistics.foreign["user space"] += 1
            self._step_over(self._illegal_op)
            return []
        frame = registers.gprs[_ARGUMENT]
        trapped = Trapped.parse(memory.read(frame, PT_REGS_SIZE))
        outcome = execute(trapped, self.adapters, memory)
        if isinstance(outcome, Foreign):
            self.statistics.foreign[outcome.why] += 1
            self._step_over(self._illegal_op)
            return []
        self._likely = ((frame, PT_REGS_SIZE), (trapped.instruction_address, trapped.length))
        if self._first is not None and outcome.name != "PLO test":
            first, self._first = self._first, None
            first(self._rsp)
        self.statistics.executed[outcome.name] += 1
        offset, data = outcome.after.changed_part()
        return [
            *(write_packet(address, stored) for address, stored in outcome.writes),
            write_packet(frame + offset, data),
            register_packet(PSW_ADDRESS, registers.gprs[_RETURN]),
        ]

    def _at_breakpoint(self, stop: Stop, registers: Registers) -> None:
        address = registers.address
        if registers.in_user_space:
            self._step_over(address)
            return
        self._breakpoints[address](Standing(self._rsp, stop, registers))
        if Registers.parse(self._rsp.read_registers()).address == address:
            self._step_over(address)

    def _step_over(self, address: int) -> None:
        self._rsp.remove_breakpoint(address, length=BREAKPOINT_LENGTH)
        try:
            self._rsp.step()
        finally:
            self._rsp.add_breakpoint(address, length=BREAKPOINT_LENGTH)


class _KernelMemory:
    """Virtual memory of the processor that stopped, for as long as it stands still."""

    def __init__(self, rsp: Rsp) -> None:
        self._rsp = rsp
        self._known: dict[tuple[int, int], bytes] = {}

    def expect(self, place: tuple[int, int], content: bytes | None) -> None:
        """Keep what was read already; None: it could not be."""
        if content is not None and len(content) == place[1]:
            self._known[place] = content

    def read(self, address: int, size: int) -> bytes:
        """Return *size* bytes."""
        known = self._known.get((address, size))
        return self._rsp.read_memory(address, size) if known is None else known
