"""Named shapes on the kernel's path: Linux's vfio-pci between a device in Python and QEMU.

A virtual host boots with the shapes among its devices: served to the lab's QEMU, seen by a real
Linux, bound to vfio-pci, and assigned from there to the QEMU under test. So every QEMU can be
judged by them, also one that has no vfio-user-pci, and all that only ``vfio-pci`` does: quirk
windows, x-vga, x-msix-relocation, x-no-mmap.

The machine that they are assigned to runs no firmware: what that would write to base address
registers is written over qtest, beside KVM. Its vCPU stands still until somebody wants it to
read (`harness.machine.bare_reader`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from harness.device.server import Served, serve
from harness.errors import HostError
from harness.guest.keys import RunKey
from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import nested_spec
from harness.lab.accesses import WRITE_EVENTS, Accesses, counting
from harness.lab.assigned import Assigned
from harness.lab.hosts import open_virtual
from harness.lab.nested import properties_of
from harness.lab.parts import Parts
from harness.lab.vfio_user import DRIVER
from harness.machine.bare_reader import BareReader, image
from harness.machine.command import Device, Options
from harness.machine.machine import Machine
from harness.machine.qtest import Qtest
from harness.model.expectation import ROM_BAR
from harness.model.memory_map import MemoryMap
from harness.model.pci import Bar, PciFunction
from harness.model.vfio.case import VfioCase
from harness.model.vfio.mapping import VfioOptions, guest_layout
from harness.shapes.named.catalogue import NamedShape
from harness.shapes.named.placing import Placed, Space
from harness.step import step

FIRST_SLOT: Final = 0x10
"""On the root bus, of the host and of the machine inside alike."""
_MEMORY: Final = 1
"""MiB: each page is mapped for each device, which costs a message to its server."""
_INTEL: Final = 0x8086
_DISPLAY: Final = 0x03
_BIND: Final = """\
modprobe vfio_pci
for f in {functions}; do
    echo vfio-pci > /sys/bus/pci/devices/$f/driver_override
    echo $f > /sys/bus/pci/drivers_probe || true
done"""
_READER: Final = "/run/trapline-reader.bin"


@dataclass
class ShapeAssigned(Assigned):
    """A named shape that is assigned; its BARs are programmed.

    :param placed: where its BARs and its ROM were put.
    """

    placed: Placed | None = None

    def case(self) -> VfioCase:
        """Return all that its map follows from, the ROM where it was switched on."""
        case = super().case()
        bars = dict(case.bar_addresses)
        rom = bars.pop(ROM_BAR, None)
        return replace(case, bar_addresses=bars, rom_address=rom)


@dataclass
class ShapeMachine:
    """The machine that shapes are assigned to, by name of the shape."""

    machine: Machine
    assigned: Mapping[str, ShapeAssigned]
    qtest: Qtest

    @property
    def host(self) -> Host:
        """The system that QEMU runs on."""
        return next(iter(self.assigned.values())).host

    @cached_property
    def map(self) -> MemoryMap:
        """Its map, read once: nothing of it moves by itself."""
        return self.machine.memory_map()

    @cached_property
    def reader(self) -> BareReader:
        """Its vCPU, which reads and writes what it is told."""
        return BareReader(self.machine, self.qtest)

    def reads(self, where: str, *addresses: int, count: int = 50) -> Accesses:
        """Let the vCPU read words *count* times each, and count what happens (P-TRAP).

        Each word is read once before, so that the first fault is not counted. The counts are of
        all together.

        :param where: for messages.
        """
        for address in addresses:
            self.reader.read(address)
        with counting(self.machine) as counts:
            values = [self.reader.read(address, count) for address in addresses]
        total = count * len(addresses)
        return Accesses(where, total, counts.events, counts.exits, f"{values[-1]:#x}")

    def writes(self, where: str, value: int, *addresses: int, count: int = 50) -> Accesses:
        """Let the vCPU write *value* to words *count* times each, and count what happens.

        As with `reads`, the first time is not counted, and the counts are of all together.
        """
        for address in addresses:
            self.reader.write(address, value)
        with counting(self.machine, *WRITE_EVENTS) as counts:
            for address in addresses:
                self.reader.write(address, value, count)
        total = count * len(addresses)
        return Accesses(where, total, counts.events, counts.exits, f"{value:#x}", verb="writes")


@dataclass
class ShapeHost:
    """A virtual host with named shapes; closing it ends their servers too."""

    host: VirtualHost
    shapes: Mapping[str, NamedShape]
    served: Mapping[str, Served]
    slots: Mapping[str, int]
    _stack: ExitStack = field(default_factory=ExitStack)

    def functions(self) -> dict[str, PciFunction]:
        """Return the shapes as Linux shows them now."""
        there = {f.bdf.device: f for f in self.host.functions() if f.bdf.bus == 0}
        return {name: there[slot] for name, slot in self.slots.items()}

    @contextlib.contextmanager
    def machine(
        self,
        each: Mapping[str, VfioOptions],
        *,
        evidence: Path,
        properties: Mapping[str, Options] | None = None,
        emulated: Sequence[Device] = (),
        rom: Sequence[str] = (),
        at: Mapping[str, Mapping[int, int]] | None = None,
        accel: str = "",
    ) -> Iterator[ShapeMachine]:
        """Have a machine with these shapes assigned while inside.

        :param each: options of each shape, by name.
        :param properties: further properties of a shape's vfio-pci device.
        :param emulated: further devices on the root bus, without BARs that are programmed.
        :param rom: names of shapes whose ROM is switched on.
        :param at: wished addresses of BARs, by name of the shape.
        :param accel: another value of ``-accel`` than the host's.
        """
        functions = self.bound(*each)
        devices = [
            self.device(name, functions[name], **self.properties(name, options)).having(
                **(properties or {}).get(name, {})
            )
            for name, options in each.items()
        ]
        with self._launched([*devices, *emulated], evidence, accel) as (machine, qtest):
            free, assigned = Space(), {}
            for name, options in each.items():
                placed = free.place(
                    self.slots[name],
                    self._bars(functions[name], options),
                    rom_size=functions[name].rom_size if name in rom else 0,
                    at=(at or {}).get(name),
                )
                qtest.run(placed.commands())
                assigned[name] = ShapeAssigned(
                    name, functions[name], self.host, machine, None, options, placed
                )
            yield ShapeMachine(machine, assigned, qtest)

    def bound(self, *names: str) -> dict[str, PciFunction]:
        """Return the shapes *names*, which vfio-pci has now.

        All at once, and without a journal: the host is thrown away.

        :raise HostError: it does not take one of them.
        """
        there = self.functions()
        wanted = {name: there[name] for name in names}
        missing = [str(f.bdf) for f in wanted.values() if f.driver != "vfio-pci"]
        if not missing:
            return wanted
        with step("bind %d shapes to vfio-pci", len(missing)):
            self.host.run(_BIND.format(functions=" ".join(missing)))
            there = self.functions()
        wanted = {name: there[name] for name in names}
        if refused := [name for name, f in wanted.items() if f.driver != "vfio-pci"]:
            raise HostError(f"vfio-pci does not take {', '.join(refused)} of {self.host.name}")
        return wanted

    def device(self, name: str, function: PciFunction, **properties: str | int | bool) -> Device:
        """Return the device that assigns shape *name* with *properties* (``_`` for ``-``)."""
        given = {key.replace("_", "-"): value for key, value in properties.items()}
        slot = f"{self.slots[name]:#x}"
        return Device("vfio-pci", name, "pcie.0", slot, {"host": str(function.bdf), **given})

    def properties(self, name: str, options: VfioOptions) -> Options:
        """Return the properties of the vfio-pci device that *options* stand for."""
        shape, found = self.shapes.get(name), dict(properties_of(options))
        more: dict[str, str | int | bool] = {}
        if options.igd_gms:
            more["x-igd-gms"] = 1
        # On by default since 10.1, but only a real one has an OpRegion.
        if shape is not None and shape.id.vendor == _INTEL and shape.class_code >> 16 == _DISPLAY:
            more["x-igd-opregion"] = False
        return {**found, **more}

    def close(self) -> None:
        """End the host, then the servers."""
        self._stack.close()

    def _bars(self, function: PciFunction, options: VfioOptions) -> tuple[Bar, ...]:
        layout = guest_layout(
            function, options, page=self.host.page_size, qemu=self.host.qemu.version
        )
        return tuple(Bar(bar.index, bar.kind, bar.size) for bar in layout.bars)

    @contextlib.contextmanager
    def _launched(
        self, devices: Sequence[Device], evidence: Path, accel: str = ""
    ) -> Iterator[tuple[Machine, Qtest]]:
        self.host.transport.write(_READER, image())
        socket = f"/run/trapline-{devices[0].id}.qtest"
        accel = accel or self.host.accelerator.option
        spec = nested_spec(accel=accel, memory_mib=_MEMORY, name="shapes")
        spec = replace(
            spec.adding(*devices),
            paused=True,
            extra=(
                "-bios",
                _READER,
                "-qtest",
                f"unix:{socket},server=on,wait=off",
                "-qtest-log",
                "none",
            ),
        )
        with self.host.launch(spec, evidence=evidence) as machine:
            qtest = Qtest(machine.place.connect(socket, timeout=10), name="shapes")
            try:
                yield machine, qtest
            finally:
                qtest.close()


def open_shape_host(
    parts: Parts, shapes: Mapping[str, NamedShape], *, key: RunKey, evidence: Path
) -> ShapeHost:
    """Boot a virtual host with *shapes*, at most 15; vfio-pci takes all of them there.

    :param parts: with a lab's QEMU that has vfio-user-pci
        (`harness.lab.vfio_user.parts_with_devices`).
    """
    with ExitStack() as stack:
        served: dict[str, Served] = {}
        slots = {name: FIRST_SLOT + number for number, name in enumerate(shapes)}
        for name, shape in shapes.items():
            served[name] = serve(shape.device())
            stack.callback(served[name].close)
        with step("boot a virtual host with %d shapes", len(shapes)):
            host = open_virtual(
                parts,
                key=key,
                evidence=evidence,
                saved=False,
                devices=(),
                emulated=[
                    Device(DRIVER, name, "pcie.0", f"{slots[name]:#x}",
                           {"rombar": int(bool(shape.rom))}, str(served[name].socket))
                    for name, shape in shapes.items()
                ],
            )  # fmt: skip
        stack.callback(host.close)
        return ShapeHost(host, shapes, served, slots, stack.pop_all())


__all__ = ["NamedShape", "ShapeAssigned", "ShapeHost", "ShapeMachine", "open_shape_host"]
