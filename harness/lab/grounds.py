"""Systems whose IOMMU stands before devices, in the ways that Linux can use it.

On a host a device is behind the host's IOMMU. In a guest DMA of a device that is *assigned* is
judged by the IOMMU of the host, for the guest's mappings are copied there (shadowed); DMA of one
that the guest's QEMU *emulates* by the guest's. So a `Plot` has an owner: the system whose
kernel is told of faults. There is no lazy guest with an assigned device: copying wants caching
mode, and with that Linux is strict (VTD-50). With an emulated one there is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import MissingDevice
from harness.guest.dma_engine import ENGINES, DmaEngine
from harness.guest.fault_log import FaultLog
from harness.guest.system import System
from harness.guest.vfio_driver import drive
from harness.host.drivers import bind
from harness.host.host import Host
from harness.host.journal import Journal
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import function_behind
from harness.lab.nested import Nested, prepare
from harness.lab.resident import Resident
from harness.machine.command import Device
from harness.model.pci import Bdf

EMULATED = Device("edu", "emulated", "rp3", "0", {"dma_mask": 0xFFFFFFFFFFFFFFFF})
"""The function that a guest's QEMU emulates; it is plugged when the guest is up."""
_UNSAFE = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"


@dataclass(frozen=True, slots=True)
class GuestGround:
    """A nested guest with an IOMMU."""

    iommu: Device
    append: str = ""
    assigned: tuple[str, ...] = ("edu", "nvme")
    dialect: str = "vtd"
    """See `Plot.dialect`. virtio-iommu remaps no interrupts: vfio must be told to do without."""
    emulated: tuple[Device, ...] = ()
    """Further devices of its machine."""
    extra: tuple[str, ...] = ()
    """Further words for its QEMU."""


@dataclass(frozen=True)
class Plot:
    """A device behind an IOMMU, and who is told of what that refuses."""

    name: str
    device: str
    system: System
    """Where its driver runs."""
    bdf: Bdf
    """Of the device there."""
    owner: System
    source: Bdf
    """Of the device as the owner sees it."""
    other: System | None
    """The system at the other level, which is not told; None on a host."""
    dialect: str = "vtd"
    """In which the owner tells: ``vtd``, ``virtio`` or ``amd``."""

    @property
    def ground(self) -> str:
        """Name of the ground."""
        return self.name.rpartition("-")[0]

    @contextlib.contextmanager
    def engine(self) -> Iterator[DmaEngine]:
        """Open the device with a driver in user space while inside; its engine is ready."""
        with drive(self.system, self.bdf) as driver:
            engine = ENGINES[self.device](driver)
            engine.start()
            yield engine

    @contextlib.contextmanager
    def undriven(self) -> Iterator[None]:
        """Have no driver have it while inside: it is in the kernel's own domain then."""
        driver = "/sys/bus/pci/drivers/vfio-pci"
        self.system.write_text(f"{driver}/unbind", str(self.bdf))
        try:
            yield
        finally:
            self.system.write_text(f"{driver}/bind", str(self.bdf))

    def listen(self) -> FaultLog:
        """Listen to what the owner's kernel says of faults."""
        return FaultLog.listen(self.owner)


class Grounds:
    """Opens grounds when they are first wanted; hosts of their own one at a time.

    :param open_host: opens a virtual host with words for its kernel.
    :param make_evidence: makes a directory by name.
    :param hosts: words for the kernel of virtual hosts of their own, by ground.
    :param guests: guests by ground.
    """

    def __init__(
        self,
        resident: Resident,
        open_host: Callable[[str, Path], VirtualHost],
        make_evidence: Callable[[str], Path],
        hosts: Mapping[str, str],
        guests: Mapping[str, GuestGround],
    ) -> None:
        self._resident = resident
        self._host_words = hosts
        self._guests = guests
        self._open_host = open_host
        self._make_evidence = make_evidence
        self._hosts: dict[str, VirtualHost] = {}

    def plot(self, ground: str, device: str) -> Plot:
        """Return the device called *device* on the ground, with vfio-pci.

        :raise MissingDevice: there is none.
        """
        name = f"{ground}-{device}"
        if ground in self._guests:
            return self._in_guest(name, ground, device)
        host = self.host(ground)
        if host is self._resident.host:
            self._resident.free_devices()
        bdf = prepare(host, [device])[device].bdf
        return Plot(name, device, host, bdf, host, bdf, None)

    def host(self, ground: str) -> Host:
        """Return the host of a ground whose name begins with L1."""
        if ground not in self._host_words:
            return self._resident.host
        if ground not in self._hosts:
            self.close()
            place = self._make_evidence(f"isolation-{ground}")
            self._hosts[ground] = self._open_host(self._host_words[ground], place)
        return self._hosts[ground]

    def guest(self, ground: str) -> Nested:
        """Return the guest of a ground whose name begins with L2."""
        wanted = self._guests[ground]
        nested = self._resident.guest(
            f"isolation-{ground}",
            devices=[name for name in wanted.assigned if name in self._resident.names],
            iommu=wanted.iommu,
            append=wanted.append,
            emulated=wanted.emulated,
            extra=wanted.extra,
        )
        if EMULATED not in nested.machine.spec.devices:
            assert nested.guest is not None, "a guest without a system"
            nested.machine.add_device(EMULATED)
            nested.guest.probe("await", f"{function_behind(EMULATED.bus)}/config")
            nested.machine.spec = nested.machine.spec.adding(EMULATED)
        return nested

    def close(self) -> None:
        """End the hosts that were opened here."""
        while self._hosts:
            self._hosts.popitem()[1].close()

    def _in_guest(self, name: str, ground: str, device: str) -> Plot:
        nested, wanted = self.guest(ground), self._guests[ground]
        guest, host = nested.guest, nested.host
        assert guest is not None, "a guest without a system"
        if device == EMULATED.id:
            port = next(f for f in nested.machine.functions() if f.qdev_id == EMULATED.id)
            plot = Plot(name, device, guest, port.bdf, guest, port.bdf, host, wanted.dialect)
        elif device in nested.assigned:
            one = nested.assigned[device]
            plot = Plot(name, device, guest, one.bdf, host, one.function.bdf, guest)
        else:
            raise MissingDevice(
                f"{guest.name} has no {device} assigned",
                hint="an IOMMU that takes assigned functions would enable this"
                " (amd-iommu: QEMU 10.2, dma-remap)",
            )
        give_to_user_space(guest, plot.bdf, safe=wanted.dialect != "virtio")
        return plot


@contextlib.contextmanager
def taken_out(nested: Nested, name: str) -> Iterator[None]:
    """Have the assigned function *name* out of the guest while inside; nobody drives it then.

    Afterwards it is in its slot again and decodes memory, without a driver in the guest.
    """
    device = next(d for d in nested.machine.spec.devices if d.id == name)
    nested.machine.remove_device(name)
    try:
        yield
    finally:
        nested.machine.add_device(device)
        assert nested.guest is not None, "a guest without a system"
        function = function_behind(device.bus)
        nested.guest.probe("await", f"{function}/config")
        nested.guest.run(f"for f in {function}; do echo 1 > $f/enable; done")


def give_to_user_space(guest: System, bdf: Bdf, *, safe: bool) -> None:
    """Have *bdf* of *guest* with vfio-pci; it stays there."""
    driver = f"/sys/bus/pci/devices/{bdf}/driver"
    if guest.run(f"readlink {driver} || :").stdout.strip().endswith("/vfio-pci"):
        return
    guest.run("modprobe -a vfio_iommu_type1 vfio_pci")
    if not safe:
        guest.write_text(_UNSAFE, "Y")
    bind(guest, Journal(None), bdf, "vfio-pci")
