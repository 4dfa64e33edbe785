"""A host: a system on which functions are prepared and the QEMU under test is started.

`VirtualHost`, `SshHost` and `LocalHost` differ in how they come and go; everything above uses
what is here and does not know which it has.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.errors import HostError
from harness.guest.system import System
from harness.guest.transport import Transport
from harness.host import drivers
from harness.host.journal import DriverChange, Journal
from harness.images.qemu_build import QemuFeatures
from harness.machine.command import MachineSpec
from harness.machine.machine import Launch, Machine
from harness.model.pci import Bdf, PciFunction, PciId
from harness.model.version import QemuVersion
from harness.step import step


class Accel(enum.Enum):
    """What runs a machine's instructions."""

    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class Accelerator:
    """An accelerator and the reason why it is this one."""

    accel: Accel
    reason: str

    @property
    def option(self) -> str:
        """The value of ``-accel``."""
        return "kvm" if self.accel is Accel.KVM else "tcg,thread=multi"


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
    key: str
    """Public key that may log in to it."""
    private_key: Path


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

    @property
    def guest_level(self) -> str:
        """Level of the guests that are started here."""
        return f"L{int(self.level[1:]) + 1}"

    @cached_property
    def accelerator(self) -> Accelerator:
        """KVM if 64-bit guest code runs through ``/dev/kvm`` here in time, else TCG."""
        with step("probe the accelerator of %s", self.name):
            if not self.exists("/dev/kvm"):
                return Accelerator(Accel.TCG, "there is no /dev/kvm")
            said = self.probe("kvm", "--deadline", "10", timeout=40, check=False)
        if said.get("kvm") == "ok" and said.get("rax") in ("7", "0x7"):
            return Accelerator(Accel.KVM, "64-bit guest code ran through /dev/kvm: RAX = 7")
        return Accelerator(Accel.TCG, f"/dev/kvm is of no use: {said.get('reason', 'no answer')}")

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
        return drivers.bind(self, self.journal, bdf, driver)

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

    def launch(self, spec: MachineSpec, *, evidence: Path, timeout: float = 120) -> Machine:
        """Start the QEMU under test with *spec*.

        :raise LaunchFailed: it ended before QMP answered.
        """
        return Machine.launch(
            spec,
            Launch(self.transport, self.qemu, evidence, level=self.guest_level, timeout=timeout),
        )

    def close(self) -> None:
        """Put back what was changed and let go of the host."""
        for change in self.journal.pending():
            self.put_back(change)
        self.transport.close()
