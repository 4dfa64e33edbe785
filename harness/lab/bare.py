"""A machine on a host that executes nothing; its registers are written over qtest.

No firmware and no guest: what they would write to configuration space a test writes, in its own
order, and nothing else happens. Up in half a second, on any host. The time of the machine
(``QEMU_CLOCK_VIRTUAL``) stands still until `Bare.machine` is let run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from harness.errors import HostError
from harness.host.host import Host
from harness.host.virtual_spec import nested_spec
from harness.machine.command import Device
from harness.machine.machine import Machine
from harness.machine.qtest import Qtest, Width
from harness.model.memory_map import Region
from harness.model.pci import Bar
from harness.shapes.named.placing import Space

_MEMORY: Final = 16
"""MiB: all of it is pinned for each device."""
_CAPABILITIES: Final = 0x34
_ATTEMPTS: Final = 48
"""A list of capabilities in 256 bytes is not longer."""


@dataclass(frozen=True, slots=True)
class Registers:
    """Configuration space of the function in *slot* of the root bus, as a guest sees it."""

    qtest: Qtest
    slot: int

    def read(self, offset: int, width: Width = 2) -> int:
        """Read *width* bytes."""
        return self.qtest.config_read(0, self.slot, 0, offset, width)

    def write(self, offset: int, value: int, width: Width = 2) -> None:
        """Write *width* bytes."""
        self.qtest.config_write(0, self.slot, 0, offset, value, width)

    def change(self, offset: int, *, clear: int = 0, set: int = 0) -> None:
        """Clear and set bits of the 16 bits at *offset*."""
        self.write(offset, self.read(offset) & ~clear | set)

    def capability(self, wanted: int) -> int:
        """Return where the capability with id *wanted* lies.

        :raise HostError: it has none.
        """
        at = self.read(_CAPABILITIES, 1)
        for _ in range(_ATTEMPTS):
            if not at:
                break
            if self.read(at, 1) == wanted:
                return at
            at = self.read(at + 1, 1)
        raise HostError(f"the function in slot {self.slot:#x} has no capability {wanted:#04x}")


@dataclass(frozen=True, slots=True)
class Bare:
    """A machine that executes nothing."""

    machine: Machine
    qtest: Qtest
    _space: Space = field(default_factory=Space)

    def registers(self, slot: int) -> Registers:
        """Return the configuration space of what is in *slot* of the root bus."""
        return Registers(self.qtest, slot)

    def program(
        self, slot: int, bars: Sequence[Bar], *, at: Mapping[int, int] | None = None
    ) -> dict[int, int]:
        """Write *bars* of the function in *slot*, and switch it on, as firmware would.

        Each time they go to a place where nothing was before.

        :param at: addresses that are wished for, by BAR.
        :return: address of each BAR.
        """
        placed = self._space.place(slot, bars, at=at)
        self.qtest.run(placed.commands())
        return dict(placed.addresses)

    def rows(self, device: str) -> list[Region]:
        """Return the rows that the device with id *device* has in the flat views now."""
        return [row for view in self.machine.memory_map() for row in view.owned_by(device)]


@contextlib.contextmanager
def bare_machine(
    host: Host,
    *devices: Device,
    evidence: Path,
    name: str = "bare",
    iommu: Device | None = None,
    words: Sequence[str] = (),
) -> Iterator[Bare]:
    """Have such a machine on *host* while inside: four root ports, and *devices*.

    :param words: more for its command line.
    :raise LaunchFailed: QEMU refused.
    """
    spec = nested_spec(
        accel=host.accelerator.option, iommu=iommu, assigned=devices, memory_mib=_MEMORY,
        name=name,
    )  # fmt: skip
    socket = f"/run/trapline-{name}.qtest"
    extra = ("-qtest", f"unix:{socket},server=on,wait=off", "-qtest-log", "none", *words)
    spec = replace(spec, paused=True, no_reboot=False, extra=extra)
    with host.launch(spec, evidence=evidence) as machine:
        qtest = Qtest(machine.place.connect(socket, timeout=10), name=name)
        try:
            yield Bare(machine, qtest)
        finally:
            qtest.close()
