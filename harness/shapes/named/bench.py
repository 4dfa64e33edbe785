"""Named shapes served to QEMU itself: one machine without a processor, driven over qtest.

This is the short way (vfio-user, no Linux between): tens of milliseconds, and the server sees
every access that QEMU does not serve from a mapping.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from harness.device.config_space import CAP_MSIX
from harness.device.device import Device as ServedDevice
from harness.device.server import Served, SessionMaker, serve
from harness.device.session import Session
from harness.guest.local import LocalTransport
from harness.images.qemu_build import QemuBuild
from harness.machine.command import Device, MachineSpec, Options
from harness.machine.launch import Launch
from harness.machine.machine import Machine
from harness.machine.qtest import Qtest, Width
from harness.model.address import AddressRange
from harness.model.expectation import ROM_BAR, Expectation
from harness.model.memory_map import MemoryMap
from harness.model.pci import Bar, Bdf, Capability, MsixCapability, PciFunction
from harness.model.version import KernelVersion, QemuVersion
from harness.model.vfio.case import Transport, VfioCase
from harness.model.vfio.expectation import expect_vfio
from harness.model.vfio.mapping import RegionFacts
from harness.shapes.named.placing import Placed, Space

DRIVER: Final = "vfio-user-pci"
FIRST_SLOT: Final = 2
ECAM: Final = 0xB000_0000
"""Where q35's memory-mapped configuration space is put."""
_CONFIG: Final = 4096
_PCIEXBAR: Final = 0x60
_EXPRESS: Final = 0x10
_NO_KERNEL: Final = KernelVersion(0, 0)


@dataclass(frozen=True, slots=True)
class Guest:
    """A device that is to be served, and how QEMU is given it."""

    name: str
    device: ServedDevice
    properties: Mapping[str, str | int | bool] | None = None
    at: Mapping[int, int] | None = None
    """Wished addresses of BARs."""
    bus: str = "pcie.0"
    """Another bus: its BARs are not programmed, bridges above are not."""
    addr: str = ""
    session: SessionMaker = Session
    """How QEMU is answered, see `harness.device.faults`."""
    socket: str = ""
    """Name of the socket's file, which is in the names of its regions; empty: ``name``."""


@dataclass(frozen=True, slots=True)
class Seated:
    """A served device in the machine."""

    guest: Guest
    served: Served
    placed: Placed
    machine: Machine
    qtest: Qtest
    qemu: QemuVersion

    @property
    def name(self) -> str:
        """Id of the device in the machine."""
        return self.guest.name

    @property
    def device(self) -> ServedDevice:
        """The device itself."""
        return self.guest.device

    @property
    def prefix(self) -> str:
        """Prefix of region names: QEMU calls the device after its socket."""
        return f"vfio-user:{self.served.socket}"

    def window(self, bar: int) -> AddressRange:
        """Return where BAR *bar* decodes (6: the ROM)."""
        size = self.device.rom_size
        if bar != ROM_BAR:
            size = next(b.size for b in self.placed.bars if b.index == bar)
        return AddressRange(self.placed.addresses[bar], size)

    def case(self) -> VfioCase:
        """Return all that the map follows from: what the device says of itself."""
        addresses = dict(self.placed.addresses)
        rom = addresses.pop(ROM_BAR, None)
        return VfioCase(
            function=function_of(self.device),
            kernel=_NO_KERNEL,
            qemu=self.qemu,
            bar_addresses=addresses,
            regions=region_facts(self.device),
            rom_address=rom,
            name=self.prefix,
            device_id=self.name,
            transport=Transport.USER,
        )

    def expectation(self) -> Expectation:
        """Return the map that must be."""
        return expect_vfio(self.case())

    def config(self, offset: int, width: Width = 4) -> int:
        """Read its configuration space as the guest would, all 4096 bytes (ECAM)."""
        return self.qtest.read(ecam(0, self.placed.slot) + offset, width)

    def config_space(self, bus: int = 0) -> bytes:
        """Return all of its configuration space as the guest reads it.

        :param bus: where it is behind a bridge: the number of that bus.
        """
        slot = int(self.guest.addr, 0) if bus else self.placed.slot
        words = [f"readl {ecam(bus, slot) + at:#x}" for at in range(0, _CONFIG, 4)]
        return b"".join(int(word, 16).to_bytes(4, "little") for word in self.qtest.run(words))

    def write_extended(self, offset: int, value: int) -> None:
        """Write 32 bits anywhere in its configuration space (ECAM)."""
        self.qtest.write(ecam(0, self.placed.slot) + offset, value)


@dataclass
class NamedBench:
    """A machine with served devices, by name."""

    machine: Machine
    qtest: Qtest
    seated: Mapping[str, Seated]

    @cached_property
    def map(self) -> MemoryMap:
        """Its map as it was first read."""
        return self.machine.memory_map()

    def __getitem__(self, name: str) -> Seated:
        return self.seated[name]


@contextlib.contextmanager
def named_bench(
    qemu: QemuBuild,
    guests: Sequence[Guest],
    *,
    evidence: Path,
    others: Sequence[Device] = (),
    extra: Sequence[str] = (),
) -> Iterator[NamedBench]:
    """Have a machine with *guests* while inside, their BARs programmed.

    :param qemu: the build; it has ``vfio-user-pci``.
    :param others: further devices, without BARs that are programmed; they come first.
    :param extra: further words of QEMU's command line.
    :raise LaunchFailed: QEMU refused one of them.
    """
    transport = LocalTransport()
    with ExitStack() as stack:
        served: list[Served] = []
        sockets = Path(transport.new_directory())
        stack.callback(transport.remove_directory, str(sockets))
        for guest in guests:
            served.append(
                serve(guest.device, sockets / (guest.socket or guest.name), guest.session)
            )
            stack.callback(served[-1].close)
        machine = stack.enter_context(
            Machine.launch(
                _spec(guests, served, others, sockets, extra),
                Launch(transport, qemu, evidence, level="L1"),
            )
        )
        qtest = Qtest(machine.place.connect(f"{sockets}/qtest", timeout=10), name="named")
        stack.callback(qtest.close)
        qtest.run([f"outl 0xcf8 {0x80000000 | _PCIEXBAR:#x}", f"outl 0xcfc {ECAM | 1:#x}"])
        seated, free = {}, Space()
        for number, (guest, one) in enumerate(zip(guests, served, strict=True)):
            placed = _place(guest, FIRST_SLOT + number, free)
            if guest.bus == "pcie.0":
                qtest.run(placed.commands())
            seated[guest.name] = Seated(guest, one, placed, machine, qtest, qemu.version)
        yield NamedBench(machine, qtest, seated)


def ecam(bus: int, slot: int) -> int:
    """Return where the configuration space of a function begins in memory."""
    return ECAM + (bus << 20 | slot << 15)


def _place(guest: Guest, slot: int, free: Space) -> Placed:
    bars = tuple(Bar(b.index, b.kind, b.size, b.prefetchable) for b in guest.device.bars)
    has_rom = (guest.properties or {}).get("rombar", -1) != 0
    rom_size = guest.device.rom_size if has_rom else 0
    return free.place(slot, bars, rom_size=rom_size, at=guest.at)


def _spec(
    guests: Sequence[Guest],
    served: Sequence[Served],
    others: Sequence[Device],
    sockets: Path,
    extra: Sequence[str],
) -> MachineSpec:
    devices = [
        Device(
            DRIVER, guest.name, guest.bus, guest.addr or f"{FIRST_SLOT + number:#x}",
            _options(guest), str(one.socket),
        )
        for number, (guest, one) in enumerate(zip(guests, served, strict=True))
    ]  # fmt: skip
    return MachineSpec(
        name="named",
        accel="qtest",
        memory_mib=16,
        devices=(*others, *devices),
        extra=(
            "-qtest", f"unix:{sockets}/qtest,server=on,wait=off", "-qtest-log", "none", *extra,
        ),
    )  # fmt: skip


def _options(guest: Guest) -> Options:
    return dict(guest.properties or {})


def function_of(device: ServedDevice) -> PciFunction:
    """Return what *device* says of itself as a PCI function; nobody is asked (pure)."""
    msix = device.msix
    return PciFunction(
        bdf=Bdf(0, 0, 0, 0),
        id=device.id,
        class_code=device.class_code,
        bars=tuple(bar.bar for bar in device.bars),
        msix=None if msix is None else MsixCapability(
            device.config.places[CAP_MSIX, False], msix.vectors,
            msix.table_bar, msix.table_offset, msix.pba_bar, msix.pba_offset,
        ),
        capabilities=(Capability(_EXPRESS, 0x40),) if device.express is not None else (),
        rom_size=device.rom_size,
        interrupt_pin=device.interrupt_pin,
    )  # fmt: skip


def region_facts(device: ServedDevice) -> dict[int, RegionFacts]:
    """Return what *device* says may be mapped of each BAR (pure)."""
    msix = device.msix
    return {
        bar.index: RegionFacts(
            mappable=bar.is_direct,
            msix_mappable=msix is not None and msix.mappable and msix.table_bar == bar.index,
            sparse=bar.direct if isinstance(bar.direct, tuple) else None,
        )
        for bar in device.bars
    }
