"""An assigned function seen from all sides: the host's, the machine's, the guest's."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from harness.errors import HostError
from harness.guest.guest import Guest
from harness.guest.system import parse_pairs
from harness.host.accelerator import Accel
from harness.host.host import Host
from harness.lab.accesses import Accesses, counting
from harness.machine.machine import Machine
from harness.model.address import AddressRange
from harness.model.expectation import Expectation
from harness.model.memory_map import FlatView, MemoryMap
from harness.model.pci import Bdf, MsixCapability, PciFunction
from harness.model.trap import TrapClass, predicted_class
from harness.model.vfio.case import VfioCase
from harness.model.vfio.expectation import expect_vfio
from harness.model.vfio.mapping import VfioOptions, alone_on_their_page
from harness.parse.hmp import MemoryDump, parse_examine
from harness.step import step

CONFIG_EVENTS = ("vfio_pci_read_config", "memory_region_ops_*", "kvm_run_exit")


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
        return self.machine.function_of(self.name).bdf

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
            subpage_reserved=self._alone_on_their_page,
            options=self.options,
            device_id=self.name,
        )

    @cached_property
    def _alone_on_their_page(self) -> frozenset[int]:
        page = self.host.page_size
        if all(bar.size >= page for bar in self.function.bars if bar.is_memory):
            return frozenset()
        others = [f for f in self.host.functions() if f.bdf != self.function.bdf]
        return alone_on_their_page(self.function, others, page)

    def expectation(self) -> Expectation:
        """Return the map that must be."""
        return expect_vfio(self.case())

    def predicted(self, view: FlatView, address: int) -> TrapClass:
        """Return who will serve an access at *address*, by the map."""
        return predicted_class(view.regions, address, self.host.page_size)

    def read(self, bar: int, *offsets: int, count: int = 400, width: int = 4) -> Accesses:
        """Let the guest read one word of BAR *bar* *count* times, and count what happens.

        With several *offsets* each is read *count* times; the counts are of all together.
        The page is touched once before, so that the first fault is not counted (P-TRAP).
        """
        path = self.os.resource_file(self.bdf, bar)
        where = ", ".join(f"{offset:#x}" for offset in offsets)
        return self._reads(
            f"BAR {bar}+{where}",
            [
                ["mem", "read", path, hex(offset), "--width", str(width), "--count", str(count)]
                for offset in offsets
            ],
            count * len(offsets),
        )

    def read_port(self, bar: int, offset: int, *, count: int = 400, width: int = 4) -> Accesses:
        """Do the same with a BAR of I/O ports; their exits are no MMIO exits (TRP-04)."""
        path = self.os.resource_file(self.bdf, bar)
        words = ["port", "read", path, hex(offset), "--width", str(width), "--count", str(count)]
        return replace(self._reads(f"BAR {bar}+{offset:#x}", [words], count), exits=None)

    def read_config(self, offset: int, *, count: int = 400, width: int = 4) -> Accesses:
        """Do the same with a word of configuration space.

        Counted are ``vfio_pci_read_config``, accesses of emulated registers on the way to it,
        and the times that KVM gave control to QEMU.
        """
        words = ["config", "read", str(self.bdf), hex(offset),
                 "--width", str(width), "--count", str(count)]  # fmt: skip
        return self._reads(f"config {offset:#x}", [words], count, *CONFIG_EVENTS)

    def _reads(
        self, where: str, words: Sequence[Sequence[str]], count: int, *events: str
    ) -> Accesses:
        commands = [shlex.join([self.os.probe_path, *each]) for each in words]
        with (
            step("read %s %s %d times", self.name, where, count),
            counting(self.machine, *events) as counts,
        ):
            said = parse_pairs(self.os.run(" && ".join(commands)).stdout)
        return Accesses(
            where=f"{self.name} {where}",
            count=count,
            events=counts.events,
            exits=counts.exits,
            value=said.get("last", ""),
            counters=counts.counters,
        )

    def words(self, bar: int, offset: int, count: int) -> tuple[int, ...]:
        """Let the guest read *count* 32-bit words of a memory BAR, each once."""
        said = self.os.probe("mem", "words", self.os.resource_file(self.bdf, bar), offset, count)
        return tuple(int(word, 16) for word in said["words"].split(","))

    def examine(self, bar: int, offset: int, count: int) -> MemoryDump:
        """Read *count* 32-bit words of a memory BAR by the monitor (``xp``), no vCPU involved.

        It takes QEMU's own way through the memory map; what is ramd is read too (TRP-18).
        """
        address = self.machine.bar_addresses(self.name)[bar] + offset
        return parse_examine(self.machine.qmp.hmp(f"xp /{count}wx {address:#x}"))

    @contextlib.contextmanager
    def decoding_off(self) -> Iterator[None]:
        """Have the guest clear COMMAND.MSE (bit 1) of the function while inside."""
        with self._command(cleared=1 << 1, purpose="memory decoding off"):
            yield

    @contextlib.contextmanager
    def pin_off(self) -> Iterator[None]:
        """Have the guest set COMMAND.INTxDisable (bit 10) of the function while inside."""
        with self._command(set_=1 << 10, purpose="interrupt pin off"):
            yield

    @contextlib.contextmanager
    def _command(self, *, set_: int = 0, cleared: int = 0, purpose: str) -> Iterator[None]:
        bdf, command = str(self.bdf), 0x04
        before = int(self.os.probe("config", "read", bdf, command, "--width", "2")["last"], 16)
        with step("%s: %s", self.name, purpose):
            self._write_command(before & ~cleared | set_)
        try:
            yield
        finally:
            self._write_command(before)

    def _write_command(self, value: int) -> None:
        self.os.probe("config", "write", str(self.bdf), 0x04, "--width", "2", "--value", value)

    @contextlib.contextmanager
    def unplugged(self) -> Iterator[None]:
        """Take it out of the running machine while inside, with the guest's help.

        Afterwards it is in its slot again, its BARs programmed by the guest.
        """
        device = next(d for d in self.machine.spec.devices if d.id == self.name)
        with step("unplug %s", self.name):
            self.machine.remove_device(self.name)
        try:
            yield
        finally:
            with step("plug %s again", self.name):
                self.machine.add_device(device)
                self.machine.wait_until_mapped(self.name)
