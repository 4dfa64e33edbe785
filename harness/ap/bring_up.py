"""An AP host is brought up: QEMU, who stands behind it, the agent in it; addresses, once."""

from __future__ import annotations

from pathlib import Path

from harness.ap.adapters import Adapters
from harness.ap.agent import Agent
from harness.ap.agent_transport import AgentTransport
from harness.ap.rsp import Rsp
from harness.ap.spec import AGENT, GDB, ApHostSpec
from harness.ap.symbols import Symbols, parse_kallsyms
from harness.ap.trap import TrapLoop
from harness.errors import LaunchFailed
from harness.machine.command import MachineSpec
from harness.machine.launch import Launch, Runnable
from harness.machine.machine import Machine
from harness.machine.place import LocalPlace
from harness.machine.saved_state import SavedState, go_on
from harness.step import step

UP = 90.0
"""Seconds from the start of QEMU until the agent must answer."""
_HAS_SIEF2_AND_64BSCAO = 0x60
"""In the second byte of ``struct sclp_info`` (arch/s390/include/asm/sclp.h)."""


def start_machine(
    spec: MachineSpec, qemu: Runnable, evidence: Path, *, state: SavedState | None = None
) -> Machine:
    """Start QEMU for an AP host.

    QMP is left at once: each AP instruction would be two events of it.

    :param state: loaded into it; it stands still then.
    :raise StateBroken: QEMU does not take the state.
    """
    machine = Machine.launch(spec, Launch(LocalPlace(), qemu, evidence, level="L1"))
    try:
        if state is not None:
            go_on(machine.qmp, state, guard=machine.check_alive, run=False)
        machine.qmp.close()
    except BaseException:
        machine.kill()
        raise
    return machine


def stand_behind(
    machine: Machine, symbols: Symbols, adapters: Adapters, *, armed: bool
) -> TrapLoop:
    """Let *adapters* execute the AP instructions of *machine*, which stands still; it goes on.

    :param armed: its kernel was told before that there is SIE.
    :raise LaunchFailed: the gdbstub does not answer.
    """
    stream = machine.try_connect(machine.sockets.stream(GDB))
    if stream is None:
        raise LaunchFailed(
            f"{machine.spec.name}: nobody listens at the gdbstub's socket",
            exit_status=None, stderr=machine.stderr(), evidence=machine.evidence / "qemu.log",
        )  # fmt: skip
    rsp = Rsp(stream, name=machine.spec.name, log=machine.evidence / "gdb.log")

    def have_sie(standing: Rsp) -> None:
        at = symbols.sclp + 1
        (byte,) = standing.read_memory(at, 1)
        standing.write_memory(at, bytes([byte | _HAS_SIEF2_AND_64BSCAO]))

    try:
        rsp.begin()
        loop = TrapLoop(
            rsp, symbols.illegal_op, adapters, name=machine.spec.name,
            first=have_sie if symbols.sclp and not armed else None,
        )  # fmt: skip
        loop.start()
    except BaseException:
        rsp.close()
        raise
    return loop


def connect_agent(machine: Machine, traps: TrapLoop | None, *, timeout: float) -> AgentTransport:
    """Return a connection to the agent, which may have to boot first.

    :raise Unreachable: it does not answer in *timeout* seconds.
    """
    stream = machine.try_connect(machine.sockets.stream(AGENT))
    if stream is None:
        raise LaunchFailed(
            f"{machine.spec.name}: nobody listens at the agent's socket",
            exit_status=None, stderr=machine.stderr(), evidence=machine.evidence / "qemu.log",
        )  # fmt: skip
    guards = (machine.check, traps.check) if traps is not None else (machine.check,)
    agent = Agent(stream, name=machine.spec.name, guards=guards)
    try:
        agent.greet(timeout=timeout)
    except BaseException:
        agent.close()
        raise
    return AgentTransport(agent)


def discover_symbols(spec: ApHostSpec, *, qemu: Runnable, evidence: Path) -> Symbols:
    """Boot the kernel of *spec* once, without adapters, and read its addresses."""
    with step("find the addresses in %s", Path(spec.files.kernel).name):
        machine = start_machine(spec.machine(traps=False), qemu, evidence)
        try:
            transport = connect_agent(machine, None, timeout=UP)
            text = transport.read("/proc/kallsyms").decode(errors="replace")
            transport.close()
        finally:
            machine.kill()
        return parse_kallsyms(text)
