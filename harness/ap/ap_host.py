"""An AP host: an s390x kernel under an unpatched QEMU, with its adapters in Python."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from harness.ap.adapters import Adapters
from harness.ap.agent import Pending
from harness.ap.agent_transport import AgentTransport
from harness.ap.agent_wire import FileAnswer, FileRequest
from harness.ap.bring_up import UP, connect_agent, stand_behind, start_machine
from harness.ap.instruction_log import InstructionLog
from harness.ap.kernel_modules import load_set
from harness.ap.sie_view import SieView
from harness.ap.spec import ApHostSpec
from harness.ap.symbols import Symbols
from harness.ap.trap import TrapLoop
from harness.errors import HostError
from harness.guest.system import System
from harness.machine.command import MachineSpec
from harness.machine.launch import Launch, Runnable
from harness.machine.machine import Machine
from harness.machine.qmp import Qmp
from harness.machine.saved_state import SavedState, save, to_be_saved, to_go_on
from harness.step import step
from harness.wait import wait_until

log = logging.getLogger(__name__)

NO_RUNNING = (
    "a guest on an AP host cannot run: KVM is told that there is SIE, and there is none."
    " It stays in prelaunch"
)


class NoApInstruction(HostError):
    """The kernel executed no AP instruction that we saw."""


class ApHost(System):
    """A running AP host. Make one with `ApHost.boot`.

    ``machine`` is its QEMU process: lab equipment, not the subject.
    """

    def __init__(
        self,
        spec: ApHostSpec,
        machine: Machine,
        transport: AgentTransport,
        adapters: Adapters,
        traps: TrapLoop,
        symbols: Symbols,
        inner_qemu: Runnable | None = None,
    ) -> None:
        super().__init__(transport, level="L1")
        self._undo = contextlib.ExitStack()
        self.spec = spec
        self.machine = machine
        self.adapters = adapters
        self.inner_qemu = inner_qemu
        self.traps = traps
        self._symbols = symbols

    # -- life -------------------------------------------------------------------------------------

    @classmethod
    def boot(
        cls,
        spec: ApHostSpec,
        *,
        qemu: Runnable,
        symbols: Symbols,
        evidence: Path,
        inner_qemu: Runnable | None = None,
        state: SavedState | None = None,
    ) -> ApHost:
        """Start it and return when the modules of *spec* are loaded.

        :param qemu: the ``qemu-system-s390x`` that it runs on.
        :param inner_qemu: the one that runs in it, where its disk is mounted.
        :param state: where `save` will save it.
        :raise MachineError: QEMU could not be started, or died.
        :raise GuestError: its kernel crashed, or the agent does not answer.
        :raise NoApInstruction: the addresses are of another kernel.
        :raise HostError: its modules cannot be loaded.
        """
        machine_spec = spec.machine()
        if state is not None:
            machine_spec = to_be_saved(machine_spec, state)
        with step("boot an AP host"):
            host = cls._up(spec, machine_spec, qemu, symbols, evidence, inner_qemu)
            try:
                if not host.adapters.mark:
                    raise NoApInstruction(
                        "the kernel of the AP host executed no AP instruction",
                        seen=f"nothing came to illegal_op at {symbols.illegal_op:#x}",
                        evidence=evidence,
                        hint="the address is of another kernel, or QEMU has AP instructions now",
                    )
                host.prepare()
            except BaseException:
                host.close()
                raise
            return host

    @classmethod
    def restore(
        cls,
        spec: ApHostSpec,
        state: SavedState,
        *,
        qemu: Runnable,
        symbols: Symbols,
        evidence: Path,
        inner_qemu: Runnable | None = None,
    ) -> ApHost:
        """Go on from *state*, which was saved of *spec*, with adapters as they were then.

        :raise StateBroken: QEMU does not take the state.
        :raise MachineError: QEMU could not be started, or died.
        :raise GuestError: the agent does not answer.
        """
        read_only = state.memory.exists() and not os.access(state.memory, os.W_OK)
        machine_spec = to_go_on(spec.machine(), state, read_only=read_only)
        with step("go on from a saved AP host"):
            return cls._up(spec, machine_spec, qemu, symbols, evidence, inner_qemu, state)

    @classmethod
    def _up(
        cls,
        spec: ApHostSpec,
        machine_spec: MachineSpec,
        qemu: Runnable,
        symbols: Symbols,
        evidence: Path,
        inner_qemu: Runnable | None,
        state: SavedState | None = None,
    ) -> ApHost:
        with contextlib.ExitStack() as undo:
            note = InstructionLog(evidence / "ap-instructions.log")
            undo.callback(note.close)
            # Ends after the machine: one that goes on alone trips over its first AP instruction,
            # and says so on the console.
            behind = undo.enter_context(contextlib.ExitStack())
            machine = start_machine(machine_spec, qemu, evidence, state=state)
            undo.callback(machine.kill)
            adapters = Adapters(spec.hardware, note=note)
            traps = stand_behind(machine, symbols, adapters, armed=state is not None)
            behind.callback(traps.end)
            transport = connect_agent(machine, traps, timeout=UP)
            undo.callback(transport.close)
            host = cls(spec, machine, transport, adapters, traps, symbols, inner_qemu)
            host._undo = undo.pop_all()
            return host

    def save(self, state: SavedState) -> None:
        """Save it where `boot` was told; it is only good for being closed then.

        :raise StateBroken: it cannot be saved.
        """
        self.transport.close()
        self.traps.hold()
        qmp = Qmp(
            self.machine.spec.name, self.machine.evidence / "qmp-save.jsonl",
            guards=(self.machine.check_alive,),
        )  # fmt: skip
        try:
            qmp.connect(self.machine.place.connect(self.machine.sockets.qmp_debug, timeout=10))
            save(qmp, state, guard=self.machine.check_alive)
        finally:
            qmp.close()

    def prepare(self) -> None:
        """Load the modules and let the AP bus find its queues."""
        with step("load the modules: %s", self.spec.modules or "none"):
            # For KVM_CREATE_VM, by programs that do not say it in their headers; gone in 7.2.
            if self.exists("/proc/sys/vm/allocate_pgste"):
                self.write_text("/proc/sys/vm/allocate_pgste", "1")
            if self.spec.modules:
                load_set(self.agent_transport, self.spec.modules)
        with step("wait until every queue has its driver"):
            self.wait_for_bindings()

    def wait_for_bindings(self, *, timeout: float = 60) -> str:
        """Wait until the AP bus has finished with its queues; return ``12/12 (complete)``."""
        path = "/sys/bus/ap/bindings"
        return wait_until(
            f"{self.name}: the AP bus says that all is bound",
            lambda: said if "(complete)" in (said := self.read_text(path).strip()) else None,
            timeout=timeout,
            guards=(self.check,),
            last_seen=lambda: self.read_text(path).strip(),
        )

    def check(self) -> None:
        """Raise if it is dead, or its adapters are. A guard for waits."""
        self.machine.check()
        self.traps.check()

    def close(self) -> None:
        """End it; nothing needs to be put back."""
        self._undo.close()

    @property
    def agent_transport(self) -> AgentTransport:
        """Its connection."""
        assert isinstance(self.transport, AgentTransport)
        return self.transport

    # -- files --------------------------------------------------------------------------------

    def batch(self, requests: list[FileRequest], *, timeout: float = 60) -> list[FileAnswer]:
        """Have file operations done in order, in one trip, each with its errno."""
        return self.agent_transport.batch(requests, timeout=timeout)

    def read_text(self, path: str) -> str:
        """Return a file as text.

        :raise CommandFailed: it cannot be read; the exit status is the errno.
        """
        (answer,) = self.batch([FileRequest("r", path)])
        self.agent_transport.must(f"read {path}", answer)
        return answer.text

    def exists(self, path: str) -> bool:
        """Say whether *path* exists."""
        (answer,) = self.batch([FileRequest("s", path)])
        return not answer.errno

    def list_directory(self, path: str) -> list[str]:
        """Return the names in *path*, sorted; empty if there is no such directory."""
        (answer,) = self.batch([FileRequest("d", path)])
        return sorted(answer.text.split("\0")[:-1])

    def write_begin(self, path: str, text: str) -> Pending:
        """Begin a write that may block for long; its answer comes when the kernel is done."""
        return self.agent_transport.agent.begin([FileRequest("w", path, text.encode())])

    # -- kernel log ---------------------------------------------------------------------------

    def kernel_log_mark(self) -> int:
        """Return a position in the kernel log, for `kernel_log_since`."""
        numbers = [number for number, _ in self._log_records(0)]
        return numbers[-1] + 1 if numbers else 0

    def kernel_log_since(self, mark: int) -> str:
        """Return what the kernel logged after *mark*, one record a line."""
        return "\n".join(text for _, text in self._log_records(mark))

    def kernel_log(self) -> str:
        """Return the whole kernel log."""
        return self.kernel_log_since(0)

    def _log_records(self, mark: int) -> list[tuple[int, str]]:
        (answer,) = self.batch([FileRequest("k", "/dev/kmsg", str(mark).encode())])
        self.agent_transport.must("read /dev/kmsg", answer)
        return parse_records(answer.text)

    # -- the guest of this host -------------------------------------------------------------------

    def launch(self, spec: MachineSpec, *, evidence: Path, timeout: float = 60) -> Machine:
        """Start the inner QEMU with *spec*; the caller ends it.

        Its guest never runs: ``cont`` is refused.

        :raise LaunchFailed: it ended before QMP answered.
        :raise HostError: there is no inner QEMU, or *spec* would run at once.
        """
        if self.inner_qemu is None or not self.spec.files.inner_qemu:
            raise HostError(f"{self.name} has no QEMU in it", hint="its disk was not given")
        if not spec.paused:
            raise HostError(f"{spec.name}: {NO_RUNNING}", hint="MachineSpec(paused=True)")
        machine = Machine.launch(
            spec,
            Launch(self.agent_transport, self.inner_qemu, evidence, level="L2", timeout=timeout),
        )
        machine.qmp.forbid("cont", NO_RUNNING)
        return machine

    def sie(self) -> SieView:
        """Return a view of what a guest could use whenever one is about to run.

        :raise HostError: the kernel has no SIE, or does not say where.
        """
        if not self._symbols.sie:
            raise HostError(f"{self.name}: its kernel does not say where SIE is executed")
        return SieView(self.traps, self._symbols.sie)

    @contextlib.contextmanager
    def watch_writes(self, address: int, length: int = 8) -> Iterator[list[int]]:
        """Collect the PSW address after each write to *length* bytes at *address*."""
        hits: list[int] = []
        with self.traps.watching(address, length, lambda at: hits.append(at.registers.address)):
            yield hits


_RECORD = re.compile(r"\d+,(\d+),\d+,[^;]*;(.*)", re.DOTALL)


def parse_records(text: str) -> list[tuple[int, str]]:
    """Read records of ``/dev/kmsg``, each ended by a NUL: sequence number and text (pure)."""
    found = []
    for record in text.split("\0"):
        match = _RECORD.match(record)
        if match is not None:
            # Lines that begin with a blank are fields for programs.
            lines = [line for line in match[2].split("\n") if line and not line.startswith(" ")]
            found.append((int(match[1]), "\n".join(lines)))
    return found
