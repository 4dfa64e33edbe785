"""One QEMU process: launched, spoken to over QMP, watched, ended; evidence kept.

A `Machine` is what QMP can see; the system that runs inside is a `harness.guest.guest.Guest`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from harness.errors import (
    HarnessError,
    LaunchFailed,
    MachineDied,
    MachineError,
    QmpFailed,
    WaitTimeout,
)
from harness.machine.command import Device, MachineSpec, Sockets, command_line
from harness.machine.console import Console
from harness.machine.exit_status import describe_exit
from harness.machine.launch import Launch
from harness.machine.leavings import keep_what_it_left
from harness.machine.place import Process
from harness.machine.qmp import Qmp
from harness.machine.stopped import stopped_by_itself
from harness.machine.traces import TraceWindow
from harness.machine.unplug import ask_to_go
from harness.model.memory_map import MemoryMap
from harness.model.memory_map_json import map_to_dict
from harness.model.memory_tree import MemoryTree
from harness.model.pci_listing import QueryPciFunction
from harness.parse.mtree import parse_memory_map, parse_memory_tree
from harness.parse.query_stats import parse_query_pci, parse_query_stats
from harness.step import step
from harness.wait import wait_until

log = logging.getLogger(__name__)

T = TypeVar("T")


class Machine:
    """A QEMU process. Make one with `Machine.launch`."""

    def __init__(self, spec: MachineSpec, launch: Launch, sockets: Sockets) -> None:
        self.spec = spec
        self.place = launch.place
        self.qemu = launch.qemu
        self.evidence = self.snapshots = launch.evidence
        self.level = launch.level
        self.sockets = sockets
        self.exit_status: int | None = None
        self._process: Process | None = None
        self._qmp: Qmp | None = None
        self._console: Console | None = None
        self._ending = self._holding = self.stands_still = False
        self.went_on: Callable[[], None] = lambda: None

    # -- life ---------------------------------------------------------------------------

    @classmethod
    def launch(cls, spec: MachineSpec, launch: Launch) -> Machine:
        """Start QEMU and return when QMP and the console answer.

        Nothing is left when this fails, except the evidence.

        :raise LaunchFailed: it ended, or never spoke; its words are in the message.
        :raise QmpFailed: what speaks is not QMP.
        """
        sockets = Sockets(launch.place.new_directory())
        machine = cls(spec, launch, sockets)
        argv = [*launch.qemu.argv_prefix, *command_line(spec, sockets)]
        env = {**launch.qemu.env, **launch.extra_env}
        words = [f"{key}={value}" for key, value in env.items()]
        try:
            machine._keep("qemu.cmd", shlex.join(["env", *words, *argv] if words else argv) + "\n")
            with step("start %s on %s (%s)", spec.name, launch.place.name, launch.qemu.label):
                machine._start(argv, env, stays=launch.stays)
                machine._talk(launch.timeout)
        except BaseException:
            machine.kill()
            raise
        return machine

    @classmethod
    def take_over(cls, spec: MachineSpec, launch: Launch, directory: str) -> Machine:
        """Return the machine that somebody left (`leave`) in *directory* of its place.

        :raise LaunchFailed: it is not there any more, or does not speak.
        """
        machine = cls(spec, launch, Sockets(directory))
        try:
            with step("take over %s on %s", spec.name, launch.place.name):
                try:
                    machine._process = launch.place.take_over(directory)
                except OSError as error:
                    raise LaunchFailed(
                        f"{spec.name}: nobody holds it in {directory} on {launch.place.name}",
                        exit_status=None, stderr=str(error),
                    ) from error  # fmt: skip
                machine._talk(launch.timeout)
        except BaseException:
            machine.kill()
            raise
        return machine

    def leave(self) -> str:
        """Let go of it without ending it; return the directory to find it by.

        Only for one that was started to stay, or taken over.
        """
        directory, process = self.sockets.directory, self._process
        self._ending = True
        if self._qmp is not None:
            self._qmp.close()
        if self._console is not None:
            self._console.close()
        if process is not None:
            process.leave()
        self._process = self._qmp = self._console = None
        return directory

    def _start(self, argv: list[str], env: Mapping[str, str], *, stays: bool) -> None:
        try:
            self._process = self.place.start(
                argv,
                env=env,
                log=self.sockets.stderr,
                directory=self.sockets.directory,
                stays=stays,
            )
        except OSError as error:
            raise LaunchFailed(
                f"{self.spec.name}: QEMU could not be started",
                exit_status=None,
                stderr=f"{argv[0]}: {error.strerror}",
                evidence=self.evidence / "qemu.cmd",
            ) from error

    def _talk(self, timeout: float) -> None:
        # Until it is up, an end of QEMU is a failed launch; later it is a machine that died.
        up = False
        qmp = Qmp(
            self.spec.name,
            self.evidence / "qmp.jsonl",
            guards=(lambda: self.check_alive() if up else self._check_started(),),
        )
        self._qmp = qmp

        def greeted() -> bool:
            stream = self.try_connect(self.sockets.qmp)
            if stream is None:
                return False
            # Who hangs up is a QEMU that is ending, as the next poll will see, or a relay that
            # found no socket yet.
            with contextlib.suppress(MachineDied):
                qmp.connect(stream, timeout=timeout)
                return True
            if self._process is not None:
                self._process.wait(1)
            return False

        self._wait_for("QMP", greeted, timeout)
        self._console = Console(
            self._wait_for("console", lambda: self.try_connect(self.sockets.console), timeout),
            name=self.spec.name,
            level=self.level,
            log=self.evidence / "console.log",
        )
        up = True

    def try_connect(self, path: str) -> socket.socket | None:
        """Return a stream to one of its `sockets`, None if nobody listens there yet."""
        with contextlib.suppress(OSError):
            return self.place.connect(path, timeout=5)
        return None

    def _wait_for(self, what: str, condition: Callable[[], T | None], timeout: float) -> T:
        try:
            return wait_until(
                f"{self.spec.name}: {what} socket", condition,
                timeout=timeout, guards=(self._check_started,), interval=0.01,
            )  # fmt: skip
        except WaitTimeout as error:
            raise LaunchFailed(
                error.summary,
                exit_status=None,
                stderr=self.stderr() or error.seen,
                evidence=self.evidence / "qemu.log",
                hint="it runs but does not speak; is it a QEMU, and is the computer overloaded?",
            ) from error

    def _check_started(self) -> None:
        self.place.check()
        status = self._process.poll() if self._process is not None else None
        if status is None:
            return
        self.exit_status = status
        raise LaunchFailed(
            f"{self.spec.name}: QEMU {describe_exit(status)} before QMP answered",
            exit_status=status,
            stderr=self.stderr(),
            evidence=self.evidence / "qemu.log",
        )

    def check(self) -> None:
        """Raise if QEMU is gone or its guest's kernel crashed. A guard for waits.

        The outermost cause first: the system that QEMU runs on, the guest's kernel, QEMU.

        :raise MachineDied: with its last words.
        :raise GuestCrashed: see `Console.check`.
        """
        self.place.check()
        self.go_on()
        if self._console is not None:
            self._console.check()
        self.check_alive()
        if self._qmp is not None and self._qmp.halted and not (self._holding or self._ending):
            self.check_running()

    def check_alive(self) -> None:
        """Raise if QEMU or the system under it is gone; it answers for a crashed guest too."""
        self.place.check()
        status = self._process.poll() if self._process is not None else self.exit_status
        if status is None or self._ending:
            return
        self.exit_status = status
        if self._console is not None:
            # With -no-reboot a panic ends QEMU: its last lines may still be on their way.
            self._console.wait_closed(timeout=2)
            self._console.check()
        raise MachineDied(
            f"{self.spec.name}: QEMU {describe_exit(status)} while it was needed",
            seen=self.stderr()[-2000:] or "(it said nothing)",
            evidence=self.evidence / "qemu.log",
        )

    def stderr(self) -> str:
        """Return all that QEMU said so far."""
        if not self.sockets.directory:  # ended
            kept = self.evidence / "qemu.log"
            return kept.read_text(errors="replace") if kept.exists() else ""
        if self._process is not None and self._process.poll() is not None:
            return self._process.left().get("qemu.log", b"").decode(errors="replace")
        return self.place.read(self.sockets.stderr).decode(errors="replace")

    def quit(self, *, timeout: float = 20) -> int:
        """End QEMU by QMP ``quit``, by force if it does not; return its exit status."""
        self._begin_to_end()
        if self._qmp is not None and self.exit_status is None:
            with contextlib.suppress(HarnessError):
                self._qmp.execute("quit", timeout=5)
            if self._process is not None:
                self._process.wait(timeout)
        return self.kill()

    def wait_end(self, *, timeout: float) -> int:
        """Wait until QEMU ends by itself; return its exit status.

        :raise WaitTimeout: it still runs.
        """
        self._begin_to_end()
        if self._process is not None and self._process.wait(timeout) is None:
            raise WaitTimeout(
                f"{self.spec.name}: QEMU still runs after {timeout:g} s", evidence=self.evidence
            )
        return self.kill()

    def kill(self) -> int:
        """End QEMU now, keep the evidence, remove sockets; callable twice.

        Each part is done whatever became of the others: QEMU first, as it may be stopped or
        spinning, and its sockets then end by themselves.
        """
        self._begin_to_end()
        process, self._process = self._process, None
        qmp, self._qmp = self._qmp, None
        console, self._console = self._console, None
        directory = self.sockets.directory
        with contextlib.ExitStack() as last_first:
            if directory:
                last_first.callback(self._forget_sockets)
                last_first.callback(self.place.remove_directory, directory)
                last_first.callback(self._collect, process)
            if console is not None:
                last_first.callback(console.close)
                last_first.callback(console.wait_closed, timeout=2 if process is not None else 0)
            if qmp is not None:
                last_first.callback(qmp.close)
            if process is not None:
                self.exit_status = process.kill()
        return self.exit_status if self.exit_status is not None else 0

    def _begin_to_end(self) -> None:
        self._ending = True
        with contextlib.suppress(HarnessError):
            self.place.check()  # where it stands still, nothing would end

    def _forget_sockets(self) -> None:
        self.sockets = Sockets("")

    def _collect(self, process: Process | None) -> None:
        if process is not None:
            keep_what_it_left(self.spec.name, process, self.evidence)

    def evidence_for(self, directory: Path) -> None:
        """Let snapshots go to *directory*, with links to what this machine writes meanwhile.

        For a machine that several tests share.
        """
        self.snapshots = directory
        for name in ("qemu.cmd", "qemu.log", "qmp.jsonl", "console.log", "dmesg.log"):
            link = directory / name
            if not link.is_symlink() and not link.exists():
                link.symlink_to(os.path.relpath(self.evidence / name, directory))

    def _keep(self, name: str, text: str) -> None:
        (self.snapshots / name).write_text(text, encoding="utf-8")

    # -- what QMP sees --------------------------------------------------------------------

    @property
    def qmp(self) -> Qmp:
        """The QMP session.

        :raise MachineDied: the machine was ended.
        """
        if self._qmp is None:
            raise MachineDied(f"{self.spec.name}: already ended", evidence=self.evidence)
        self.go_on()
        return self._qmp

    @property
    def console(self) -> Console:
        """The serial console.

        :raise MachineDied: the machine was ended.
        """
        if self._console is None:
            raise MachineDied(f"{self.spec.name}: already ended", evidence=self.evidence)
        return self._console

    def check_running(self) -> None:
        """Raise if the vCPUs stand still for another reason than our own ``stop``.

        :raise KvmStopped: KVM gave up: ``internal-error``.
        :raise MachineDied: ``guest-panicked``, ….
        """
        status = self.qmp.execute("query-status")["status"]
        if status not in ("running", "paused", "prelaunch"):
            raise stopped_by_itself(self.spec.name, status, self.stderr(), self.evidence)

    def stand_still(self, *, timeout: float = 60) -> None:
        """Stop the vCPUs until somebody wants the machine: `check` and `qmp` let it go on."""
        if self.stands_still or self._qmp is None:
            return
        if self._qmp.execute("query-status", timeout=timeout)["running"]:
            self.stands_still = self._holding = True
            self._qmp.execute("stop", timeout=timeout)

    def go_on(self, *, timeout: float = 60) -> None:
        """Let the vCPUs run that `stand_still` stopped."""
        if self.stands_still and self._qmp is not None:
            self.stands_still = self._holding = False
            self._qmp.execute("cont", timeout=timeout)
            self.went_on()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Hold the vCPUs while inside, so that map and counters belong together."""
        running = self.qmp.execute("query-status")["running"]
        if running:
            self._holding = True
            self.qmp.execute("stop")
        try:
            yield
        finally:
            if running:
                self.qmp.execute("cont")
                self._holding = False

    def memory_map(self, *, keep: str = "memory-map") -> MemoryMap:
        """Read ``info mtree -f -o`` with the vCPUs stopped (P-SNAP); text and JSON are kept."""
        with self.stopped():
            text = self.qmp.hmp("info mtree -f -o")
        self._keep(f"{keep}.txt", text)
        memory_map = parse_memory_map(text)
        self._keep(f"{keep}.json", json.dumps(map_to_dict(memory_map), indent=1))
        return memory_map

    def memory_tree(self, *, disabled: bool = False) -> MemoryTree:
        """Read ``info mtree -o``, with disabled regions when asked (``-D``)."""
        text = self.qmp.hmp("info mtree -o -D" if disabled else "info mtree -o")
        self._keep("memory-tree-disabled.txt" if disabled else "memory-tree.txt", text)
        return parse_memory_tree(text)

    def functions(self) -> tuple[QueryPciFunction, ...]:
        """Read ``query-pci``: where each BAR decodes now, by qdev id."""
        return parse_query_pci(self.qmp.execute("query-pci"))

    def bar_addresses(self, device: str) -> dict[int, int]:
        """Return BAR index to address for the device with id *device*; unprogrammed left out."""
        bars = self.function_of(device).bars
        return {bar.index: bar.address for bar in bars if bar.address is not None}

    def function_of(self, device: str) -> QueryPciFunction:
        """Return the function of the device with id *device*, as ``query-pci`` says it.

        :raise MachineError: there is none.
        """
        for function in self.functions():
            if function.qdev_id == device:
                return function
        raise MachineError(f"{self.spec.name} has no PCI device {device!r}")

    def wait_until_mapped(self, device: str, *, timeout: float = 60) -> dict[int, int]:
        """Wait until firmware or guest has programmed and enabled every BAR of *device*."""

        def programmed() -> dict[int, int] | None:
            for function in self.functions():
                if function.qdev_id != device or not function.bars:
                    continue
                if all(bar.address is not None for bar in function.bars):
                    return self.bar_addresses(device)
            return None

        return wait_until(
            f"{self.spec.name}: BARs of {device} programmed",
            programmed,
            timeout=timeout,
            guards=(self.check,),
            last_seen=lambda: self.qmp.hmp("info pci")[-1500:],
        )

    def statistics(self) -> dict[str, int]:
        """Return KVM's counters summed over the vCPUs (``query-stats``), empty under TCG."""
        try:
            return parse_query_stats(
                self.qmp.execute(
                    "query-stats", {"target": "vcpu", "providers": [{"provider": "kvm"}]}
                )
            )
        except QmpFailed as error:
            if not error.error_class:  # no answer is not a no
                raise
            return {}

    def trace_events(self, pattern: str) -> frozenset[str]:
        """Return the names of the trace events that match a glob; they change by version."""
        known = self.qmp.execute("trace-event-get-state", {"name": pattern})
        return frozenset(event["name"] for event in known)

    def tracing(self, *events: str) -> TraceWindow:
        """Return a context manager that counts trace events while inside."""
        return TraceWindow(self.qmp, self.place, self.sockets.trace, events)

    # -- changing it ----------------------------------------------------------------------

    def add_device(self, device: Device, *, timeout: float = 60) -> None:
        """Hot-add *device*.

        :raise QmpFailed: QEMU refused; its text is in ``description``.
        """
        arguments = {"driver": device.driver, **device.arguments()}
        self.qmp.execute("device_add", arguments, timeout=timeout)

    def remove_device(self, device: str, *, timeout: float = 60) -> None:
        """Ask for *device* to go and wait for DEVICE_DELETED.

        A guest may miss the press of the attention button; after 8 seconds it is pressed
        again (QEMU takes that for a new request after 5 s: LIF-21).

        :raise WaitTimeout: the guest does not let go of it in *timeout* seconds.
        """
        ask_to_go(self.qmp, device, timeout=timeout, guard=self.check)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
