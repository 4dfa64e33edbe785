"""A host: a system on which functions are prepared and the QEMU under test is started.

`VirtualHost`, `SshHost` and `LocalHost` differ in how they come and go; everything above uses
what is here and does not know which it has.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from harness.errors import CommandFailed, HarnessError, HostError
from harness.guest.keys import RunKey
from harness.guest.system import System, chosen
from harness.guest.transport import Transport
from harness.host import drivers
from harness.host.accelerator import Accelerator, probe_accelerator
from harness.host.journal import DriverChange, Journal
from harness.host.undo import undo
from harness.images.qemu_build import QemuFeatures
from harness.machine.command import MachineSpec
from harness.machine.launch import Launch
from harness.machine.machine import Machine
from harness.model.pci import Bdf, PciFunction, PciId
from harness.model.version import QemuVersion


@dataclass(frozen=True, slots=True)
class PlacedQemu:
    """The QEMU under test, where it lies on the host."""

    argv_prefix: Sequence[str]
    env: Mapping[str, str]
    label: str
    version: QemuVersion
    features: QemuFeatures


@dataclass(frozen=True, slots=True)
class GuestFiles:
    """Kernel and initramfs of the nested guest, as paths on the host."""

    kernel: str
    initrd: str
    release: str
    key: RunKey
    """Who may log in to it."""


class Host(System):
    """A system on which the QEMU under test is started.

    :param journal: where changes are written down before they are made.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        level: str,
        journal: Journal,
        qemu: PlacedQemu,
        guest: GuestFiles,
    ) -> None:
        super().__init__(transport, level=level)
        self.journal = journal
        self.qemu = qemu
        self.guest = guest
        self.machines: weakref.WeakSet[Machine] = weakref.WeakSet()
        """Those that were started or taken over here; some may have ended."""

    @property
    def guest_level(self) -> str:
        """Level of the guests that are started here."""
        return f"L{int(self.level[1:]) + 1}"

    @cached_property
    def accelerator(self) -> Accelerator:
        """What runs the guests of this host, and why."""
        return probe_accelerator(self)

    def find_one(self, pci_id: PciId) -> PciFunction:
        """Return the first function with *pci_id*.

        :raise HostError: there is none.
        """
        found = self.find(pci_id)
        if not found:
            raise HostError(
                f"{self.name} has no {pci_id}",
                seen=", ".join(f"{f.bdf} {f.id}" for f in self.functions()),
            )
        return found[0]

    def bind(self, bdf: Bdf, driver: str) -> DriverChange:
        """Give *bdf* to *driver*; `put_back` undoes it. See `harness.host.drivers.bind`."""
        return drivers.bind(self, self.journal, bdf, driver, group=self.claim(bdf))

    def claim(self, bdf: Bdf) -> str:
        """Keep other runs from taking *bdf*; return the name of the lock, empty if none is needed.

        :raise DeviceBusy: another run has it.
        :raise NoIommu: it cannot be assigned.
        """
        return ""

    def put_back(self, change: DriverChange) -> None:
        """Undo a `bind`."""
        drivers.put_back(self, self.journal, change)

    @contextlib.contextmanager
    def bound(self, bdf: Bdf, driver: str = "vfio-pci") -> Iterator[None]:
        """Have *bdf* with *driver* while inside."""
        change = self.bind(bdf, driver)
        try:
            yield
        finally:
            self.put_back(change)

    @contextlib.contextmanager
    def setting(self, path: str, text: str) -> Iterator[None]:
        """Have a file of procfs or sysfs say *text* while inside; it is journalled.

        :raise CommandFailed: it cannot be read, or the write was refused.
        :raise DeviceBusy: another run has it changed.
        """
        with self.alone_with(path) as lock:
            before = chosen(self.read_text(path))
            change = self.journal.attribute(path, before, group=lock)
            try:
                self.write_text(path, text)
            except CommandFailed:
                # Of what a dead run has left, something is to be put back all the same.
                if change.text == before:
                    self.journal.undone(change)
                raise
            try:
                yield
            finally:
                undo(self, self.journal, change)

    def alone_with(self, path: str) -> AbstractContextManager[str]:
        """Keep other runs from changing the file *path* while inside.

        The name of the lock is returned, empty if none is needed.

        :raise DeviceBusy: another run has it changed.
        """
        return contextlib.nullcontext("")

    @contextlib.contextmanager
    def starting_by(self, *words: str) -> Iterator[None]:
        """Start every QEMU by the program *words*, which becomes it, while inside."""
        before = self.qemu
        self.qemu = replace(before, argv_prefix=(*words, *before.argv_prefix))
        try:
            yield
        finally:
            self.qemu = before

    def launch(self, spec: MachineSpec, *, evidence: Path, timeout: float = 120) -> Machine:
        """Start the QEMU under test with *spec*.

        :raise LaunchFailed: it ended before QMP answered.
        """
        started = Machine.launch(spec, self._launch(evidence, timeout=timeout))
        self.machines.add(started)
        return started

    def take_over(self, spec: MachineSpec, directory: str, *, evidence: Path) -> Machine:
        """Return the machine that somebody left (`Machine.leave`) in *directory*.

        :raise LaunchFailed: it is not there any more, or does not speak.
        """
        taken = Machine.take_over(spec, self._launch(evidence), directory)
        self.machines.add(taken)
        return taken

    def _launch(self, evidence: Path, *, timeout: float = 60) -> Launch:
        return Launch(self.transport, self.qemu, evidence, level=self.guest_level, timeout=timeout)

    def close(self) -> None:
        """Put back what was changed and let go of the host.

        :raise HostError: something could not be put back; it stays in the journal.
        """
        stuck: list[str] = []
        try:
            for change in self.journal.ours():
                try:
                    undo(self, self.journal, change)
                except HarnessError as error:
                    stuck.append(f"{change}: {error}")
        finally:
            self.transport.close()
        if stuck:
            raise HostError(
                f"{len(stuck)} changes of {self.name} could not be put back",
                seen="\n".join(stuck),
                evidence=self.journal.path,
                hint="trapline restore tries again",
            )
