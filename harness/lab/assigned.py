"""An assigned function seen from all sides: the host's, the machine's, the guest's."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from harness.errors import HostError
from harness.guest.guest import Guest
from harness.host.accelerator import Accel
from harness.host.host import Host
from harness.machine.machine import Machine
from harness.model.address import AddressRange
from harness.model.expectation import Expectation
from harness.model.memory_map import FlatView, MemoryMap
from harness.model.pci import Bdf, MsixCapability, PciFunction
from harness.model.trap import TrapClass, measured_class, predicted_class
from harness.model.vfio_case import VfioCase
from harness.model.vfio_expectation import expect_vfio
from harness.model.vfio_mapping import VfioOptions
from harness.step import step

READ_EVENTS = (
    "memory_region_ops_read",
    "memory_region_ram_device_read",
    "vfio_region_read",
    "vfio_rom_read",
    "vfio_quirk_*",
)
"""Trace events that tell which path served a read (TRP-07)."""


@dataclass(frozen=True, slots=True)
class Accesses:
    """What was counted while the guest made *count* equal accesses."""

    where: str
    count: int
    events: dict[str, int]
    """Trace events by name; ``memory_region_ops_read`` with the region's name behind a colon."""
    exits: int | None
    """Growth of ``mmio_exits`` of the machine's vCPUs; None where KVM does not run it."""
    value: str

    @property
    def served_by(self) -> TrapClass:
        """The path that served them, from the counts alone."""
        return measured_class(self.events, self.count, self.exits)

    def explain(self) -> str:
        """Return the counts in one line."""
        events = ", ".join(f"{name} {n}" for name, n in sorted(self.events.items())) or "none"
        return (
            f"{self.count} reads at {self.where}: trace events {events}; "
            f"mmio exits {'not counted' if self.exits is None else self.exits}; "
            f"served by {self.served_by.value}"
        )


@dataclass
class Assigned:
    """A function of the host, given to a machine by vfio-pci.

    :param name: id of the device in the machine.
    :param function: as the host sees it.
    :param options: properties of the vfio-pci device that shape the map.
    """

    name: str
    function: PciFunction
    host: Host
    machine: Machine
    guest: Guest | None = None
    options: VfioOptions = field(default_factory=VfioOptions)

    def memory_map(self) -> MemoryMap:
        """Read the map of the machine (vCPUs stopped); text and JSON are kept as evidence."""
        return self.machine.memory_map()

    @cached_property
    def bdf(self) -> Bdf:
        """Where the guest sees it."""
        for function in self.machine.functions():
            if function.qdev_id == self.name:
                return function.bdf
        raise HostError(f"{self.machine.spec.name} has no PCI device {self.name!r}")

    def seen_by_guest(self) -> PciFunction:
        """Return the function as the guest's sysfs shows it."""
        return self.os.function(self.bdf)

    @property
    def os(self) -> Guest:
        """The guest's operating system.

        :raise HostError: this machine runs firmware only.
        """
        if self.guest is None:
            raise HostError(f"{self.machine.spec.name} runs no operating system")
        return self.guest

    @property
    def msix(self) -> MsixCapability:
        """Its MSI-X capability, as the host sees it.

        :raise HostError: it has none.
        """
        if self.function.msix is None:
            raise HostError(f"{self.name} has no MSI-X")
        return self.function.msix

    def window(self, bar: int) -> AddressRange:
        """Return where BAR *bar* decodes in the guest, as ``query-pci`` says."""
        address = self.machine.bar_addresses(self.name)[bar]
        return AddressRange(address, self.function.bar(bar).size)

    def table(self) -> AddressRange:
        """Return the guest addresses of its MSI-X table."""
        return self.msix.table.shifted(self.window(self.msix.table_bar).start)

    def case(self) -> VfioCase:
        """Return all that the map follows from; nothing of it is read from the map."""
        return VfioCase(
            function=self.function,
            kernel=self.host.kernel,
            qemu=self.host.qemu.version,
            bar_addresses=self.machine.bar_addresses(self.name),
            kvm=self.host.accelerator.accel is Accel.KVM,
            page=self.host.page_size,
            options=self.options,
            device_id=self.name,
        )

    def expectation(self) -> Expectation:
        """Return the map that must be."""
        return expect_vfio(self.case())

    def predicted(self, view: FlatView, address: int) -> TrapClass:
        """Return who will serve an access at *address*, by the map."""
        return predicted_class(view.regions, address, self.host.page_size)

    def read(self, bar: int, offset: int, *, count: int = 400, width: int = 4) -> Accesses:
        """Let the guest read one word of BAR *bar* *count* times, and count what happens.

        The page is touched once before, so that the first fault is not counted (P-TRAP).
        """
        path = self.os.resource_file(self.bdf, bar)
        with step("read %s BAR %d+%#x %d times", self.name, bar, offset, count):
            before = self.machine.statistics()
            with self.machine.tracing(*READ_EVENTS) as window:
                said = self.os.probe(
                    "mem", "read", path, offset, "--width", str(width), "--count", str(count)
                )
            after = self.machine.statistics()
        events: dict[str, int] = {}
        for event in window.events:
            name = event.name
            if name == "memory_region_ops_read":
                name += f":{event.fields.get('name', '')}"
            events[name] = events.get(name, 0) + 1
        counted = "mmio_exits" in before and "mmio_exits" in after
        return Accesses(
            where=f"{self.name} BAR {bar}+{offset:#x}",
            count=count,
            events=events,
            exits=after["mmio_exits"] - before["mmio_exits"] if counted else None,
            value=said.get("last", ""),
        )
