"""A guest whose own user space drives devices: DPDK, UIO, vfio, with a vIOMMU or without.

It is started on this computer by the QEMU under test, and has the system of a virtual host: the
modules of vfio and UIO, and the programs to bind functions. Its network cards lead to us, frame
by frame (`harness.machine.netdev_peer`); its testpmd comes on a disk (`harness.images.dpdk`).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from harness.errors import HarnessError, WaitTimeout
from harness.guest.keys import RunKey
from harness.guest.testpmd import Memory, testpmd
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import (
    INTEL_IOMMU,
    function_behind,
    nested_spec,
    root_ports,
    virtual_host_spec,
)
from harness.images.dpdk import MOUNT_POINT
from harness.lab.hosts import OFF, methods, restored
from harness.lab.parts import Parts
from harness.lab.states import Rung
from harness.machine.command import Device, Disk, MachineSpec
from harness.machine.machine import Machine
from harness.machine.netdev_peer import NetdevPeer, netdev_arguments
from harness.model.pci import Bdf, PciFunction
from harness.parse.frame import mac_bytes
from harness.parse.testpmd import ForwardCounts
from harness.step import step

PORT: Final = "pcie-root-port"
PORTS: Final = 8
EDUS: Final = (
    Device("edu", "edu", "pcie.0", "0x10", {"dma_mask": "0xffffffffffffffff"}),
    Device("edu", "edu-28", "pcie.0", "0x11"),
)
"""They are there from the start; the second has the mask that edu has if nobody says."""
NICS: Final[Mapping[str, Device]] = {
    "e1000e": Device("e1000e", "e1000e", "rp0", "0", {"mac": "52:54:00:00:10:d3"}),
    "e1000e-by-uio": Device("e1000e", "e1000e-by-uio", "rp3", "0", {"mac": "52:54:00:00:10:d4"}),
    "igb": Device("igb", "igb", "rp1", "0", {"mac": "52:54:00:00:10:c9"}),
    "virtio-net": Device("virtio-net-pci", "virtio-net", "rp2", "0",
                         {"mac": "52:54:00:00:10:41", "iommu_platform": True,
                          "disable-legacy": "on"}),
}  # fmt: skip
"""Network cards that can be plugged, by name.

One that a driver told wrong addresses takes frames no more, and the next driver gets old ones
first: so there is one for that.
"""
_OUR_MAC: Final = "52:54:00:00:00:01"
_ETHERTYPE: Final = b"\x88\xb5"
"""For local experiments (IEEE 802)."""
_DISK: Final = Device("virtio-blk-pci", "dpdk", "rp7", "0", {"drive": "dpdk", "serial": "dpdk"})
_LONGEST: Final = 30
"""Seconds until the kernel must have found what was plugged."""

# A function shows itself before the kernel has found room for its BARs, and says nothing when it
# has. But it holds a lock until then, which looking at the bus again waits for.
_FIND = """set -e
probe await --timeout {longest} {sign} > /dev/null
for b in {port}/pci_bus/*/rescan; do echo 1 > $b; done
for f in {sign}; do f=${{f%/config}}; echo ${{f##*/}}; done
"""
# QEMU saves edu as if it were new (`harness.host.late_plug`).
_FIND_AGAIN = """set -e
echo 1 > {path}/remove
echo 1 > /sys/bus/pci/rescan
probe await --timeout {longest} {path}/config > /dev/null
"""
_MOUNT = """set -e
for tries in $(seq 200); do
  for d in /sys/block/vd*; do
    [ "$(cat $d/serial 2>/dev/null)" = dpdk ] && break 2
  done
  usleep 50000
done
mkdir -p {place} && mount -t erofs -o ro /dev/${{d##*/}} {place}
"""


@dataclass(frozen=True, slots=True)
class Nic:
    """A network card of the guest, and our end of its cable."""

    function: PciFunction
    peer: NetdevPeer
    mac: str

    @property
    def bdf(self) -> Bdf:
        """Where it is."""
        return self.function.bdf


@dataclass(slots=True)
class Forwarding:
    """Frames that go to a card of the guest and come back."""

    nic: Nic
    sent_before: int
    received_before: int
    started: bool = False
    """A frame has come back."""
    counts: ForwardCounts | None = None
    """What testpmd counted; at its end."""
    returned: int = 0
    """Frames that we counted; at its end."""

    def exchange(self, count: int, *, timeout: float = 60) -> int:
        """Send *count* frames; return how many of them came back, addresses swapped."""
        card, ours = mac_bytes(self.nic.mac), mac_bytes(_OUR_MAC)
        first = self.nic.peer.sent
        bodies = [_ETHERTYPE + struct.pack(">I", first + n) + bytes(46) for n in range(count)]
        self.nic.peer.send(*(card + ours + body for body in bodies))
        wanted = {ours + card + body for body in bodies}
        came: set[bytes] = set()
        deadline = time.monotonic() + timeout
        while len(came) < count and (left := deadline - time.monotonic()) > 0:
            try:
                came.update(set(self.nic.peer.receive(1, timeout=left)) & wanted)
            except WaitTimeout:
                break
        return len(came)


@dataclass
class DriverGuest:
    """The guest; its devices are plugged when they are first asked for."""

    host: VirtualHost
    parts: Parts
    _nics: dict[str, Nic] = field(default_factory=dict)
    _plugged: dict[str, PciFunction] = field(default_factory=dict)
    _testpmd: tuple[str, ...] = ()
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def machine(self) -> Machine:
        """The QEMU under test that runs it."""
        return self.host.machine

    def edu(self, name: str = "edu") -> PciFunction:
        """Return one of `EDUS`."""
        addr = next(device.addr for device in EDUS if device.id == name)
        return self.host.function(Bdf(0, 0, int(addr, 0), 0))

    def nic(self, name: str) -> Nic:
        """Return the card *name* of `NICS`."""
        if name not in self._nics:
            device = NICS[name]
            path = f"{self.machine.sockets.directory}/{name}.net"
            self.machine.qmp.execute("netdev_add", netdev_arguments(f"{name}-net", path))
            function = self.plug(device.having(netdev=f"{name}-net", romfile=""))
            stream = self.machine.place.connect(path, timeout=10)
            peer = NetdevPeer(name, stream, self.machine.check, mac_bytes(_OUR_MAC))
            self._stack.callback(peer.close)
            self._nics[name] = Nic(function, peer, str(device.options["mac"]))
        return self._nics[name]

    def plug(self, device: Device) -> PciFunction:
        """Hot-add *device* to its root port; return it when the kernel has found it.

        One that is there already is returned as it is now.
        """
        if device.id not in self._plugged:
            sign = f"{function_behind(device.bus)}/config"
            with step("plug %s into %s", device.id, self.host.name):
                self.machine.add_device(device)
                said = self.host.run(
                    _FIND.format(longest=_LONGEST, sign=sign, port=sign.rsplit("/", 2)[0]),
                    timeout=_LONGEST + 10,
                ).stdout
            self._plugged[device.id] = self.host.function(Bdf.parse(said.split()[-1]))
        return self.host.function(self._plugged[device.id].bdf)

    def testpmd(self) -> tuple[str, ...]:
        """Return the words that start testpmd there; its disk is mounted first."""
        if not self._testpmd:
            dpdk = self.parts.dpdk
            self.machine.qmp.execute(
                "blockdev-add",
                {"driver": "raw", "node-name": "dpdk", "read-only": True,
                 "file": {"driver": "file", "filename": os.fspath(dpdk.erofs),
                          "read-only": True}},
            )  # fmt: skip
            self.plug(_DISK)
            self.host.run(_MOUNT.format(place=shlex.quote(MOUNT_POINT)))
            self._testpmd = dpdk.argv_prefix
        return self._testpmd

    @contextlib.contextmanager
    def forwarding(
        self, nic: Nic, memory: Memory = Memory.PAGES, *, patience: float = 120
    ) -> Iterator[Forwarding]:
        """Have testpmd send back what comes to *nic*, which has a driver for that, while inside.

        :param patience: seconds to wait for the first frame that comes back; none is no error.
        """
        with testpmd(self.host, self.testpmd(), nic.bdf, memory) as program:
            nic.peer.drain(timeout=0)
            run = Forwarding(nic, nic.peer.sent, nic.peer.received)
            deadline = time.monotonic() + patience
            while not run.started and time.monotonic() < deadline:
                run.started = bool(run.exchange(1, timeout=0.5))
            # Frames may have waited in the card; none of them may be counted later.
            nic.peer.drain(timeout=0.2)
            yield run
            run.counts = program.stop()
            # What it counted as sent may still be on its way to us.
            while nic.peer.received - run.received_before < run.counts.sent:
                if not nic.peer.drain(timeout=2):
                    break
            run.returned = nic.peer.received - run.received_before

    def close(self) -> None:
        """End it; what it said is kept."""
        with contextlib.ExitStack() as last_first:
            last_first.callback(self._stack.close)
            last_first.callback(self.host.close)
            last_first.callback(self._keep_kernel_log)

    def _keep_kernel_log(self) -> None:
        with contextlib.suppress(HarnessError):
            log = self.machine.evidence / "dmesg.log"
            log.write_text(self.host.kernel_log(), encoding="utf-8")


def run_by_qemu_under_test(parts: Parts) -> Parts:
    """Return *parts* with the QEMU under test as the one that runs machines on this computer."""
    chosen = parts.settings.model_copy(update={"l0_qemu": parts.settings.qemu})
    return Parts(chosen, parts.images)


def driver_guest_spec(
    parts: Parts, *, accel: str, iommu: Device | None, append: str = "", cpus: int = 1
) -> MachineSpec:
    """Return the machine, its root ports free."""
    spec = virtual_host_spec(
        parts.host_files(), accel=accel, devices=(), iommu=iommu, append=append
    )
    others = [device for device in spec.devices if device.driver != PORT]
    return replace(spec, devices=(*others, *root_ports(PORTS), *EDUS), cpus=cpus)


def open_driver_guest(
    parts: Parts,
    *,
    key: RunKey,
    evidence: Path,
    iommu: Device | None = INTEL_IOMMU,
    append: str = "",
    cpus: int = 1,
    saved: bool = True,
) -> DriverGuest:
    """Open such a guest, from a saved state where that can be.

    :param saved: False: it boots, and no state is kept.
    """
    parts = run_by_qemu_under_test(parts)
    accel = parts.accelerator(evidence).option
    spec = driver_guest_spec(parts, accel=accel, iommu=iommu, append=append, cpus=cpus)
    if saved and parts.settings.saved_state != OFF:
        ways = methods(parts.settings.saved_state)
        host = restored(parts, Rung(spec), ways, key=key, evidence=evidence)
        if host is not None:
            for device in EDUS:
                path = f"/sys/bus/pci/devices/0000:00:{int(device.addr, 0):02x}.0"
                host.run(_FIND_AGAIN.format(path=path, longest=_LONGEST))
            return DriverGuest(host, parts)
    host = VirtualHost.boot(
        spec,
        l0_qemu=parts.l0_qemu,
        key=key,
        qemu=parts.placed_qemu(),
        guest=parts.guest_files(key),
        evidence=evidence,
    )
    return DriverGuest(host, parts)


def boot_guest(
    parts: Parts,
    *,
    key: RunKey,
    evidence: Path,
    iommu: Device | None,
    append: str,
    devices: Sequence[Device] = (),
    disks: Sequence[Disk] = (),
) -> VirtualHost:
    """Boot the small guest on this computer by the QEMU under test.

    It is a `VirtualHost` for what it can: commands. No QEMU lies in it.

    :param devices: further ones of its machine.
    :param disks: what is behind those of them that are disks.
    """
    parts = run_by_qemu_under_test(parts)
    spec = nested_spec(
        accel=parts.accelerator(evidence).option,
        kernel=str(parts.guest.vmlinuz),
        initrd=str(parts.guest.initrd),
        iommu=iommu,
        append=append,
        name="guest",
    ).adding(*devices)
    spec = replace(spec, disks=tuple(disks))
    return VirtualHost.boot(
        spec,
        l0_qemu=parts.l0_qemu,
        key=key,
        qemu=parts.placed_qemu(),
        guest=parts.guest_files(key),
        evidence=evidence,
    )
