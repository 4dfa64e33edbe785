"""Virtual hosts whose devices have SR-IOV, and a guest on them for virtual functions.

``igb`` goes on from the state that other hosts do, and has a peer on its wire. ``nvme`` boots:
its subsystem and its disk can only be there from the start.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

from harness import paths
from harness.errors import HostError, MissingDevice, TimeStandsStill
from harness.guest.guest import Guest
from harness.guest.keys import RunKey
from harness.guest.nvme import NvmeAdmin
from harness.guest.sriov import Sriov
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import function_behind
from harness.lab.hosts import open_virtual
from harness.lab.nested import Nested, guest_spec, start_nested, take_nested
from harness.lab.parts import Parts
from harness.lab.resident import LATE
from harness.lab.wire import Wire
from harness.machine.command import Device, Disk
from harness.machine.machine import Machine
from harness.model.pci import Bdf, PciFunction
from harness.step import step

log = logging.getLogger(__name__)

SUBSYSTEM: Final = Device("nvme-subsys", "family")
NVME: Final[Mapping[str, str | int]] = {
    "serial": "trapline", "subsys": "family", "sriov_max_vfs": 4, "sriov_vq_flexible": 8,
    "sriov_vi_flexible": 4, "max_ioqpairs": 10, "msix_qsize": 9,
}  # fmt: skip
"""The smallest numbers that work (SRV-27)."""
WIDE: Final[Mapping[str, str | int]] = {
    "serial": "wide", "subsys": "wide", "sriov_max_vfs": 8, "sriov_vq_flexible": 16,
    "sriov_vi_flexible": 8, "max_ioqpairs": 18, "msix_qsize": 9, "sriov_max_vq_per_vf": 60001,
}  # fmt: skip
"""BARs of its virtual functions have 512 KiB: eight do not fit in the window of a port."""
DISK_BYTES: Final = 4 << 20
_LONGEST: Final = 60
_BOOT: Final = 400
"""Seconds: its host boots, too, so the computer is busy."""


@dataclass
class SriovStage:
    """A virtual host, its physical function with virtual ones, and a guest."""

    host: VirtualHost
    family: Sriov
    evidence: Path
    wire: Wire | None = None
    disk: Path | None = None
    """Raw file behind the namespace of an nvme."""
    port: str = "rp2"
    """Of the guest, where virtual functions go."""
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def admin(self) -> NvmeAdmin:
        """Admin commands of the physical function of an nvme."""
        return NvmeAdmin(self.host, self.family.bdf)

    @cached_property
    def nested(self) -> Nested:
        """The guest, nothing assigned."""
        place = self.evidence / "guest"
        place.mkdir(exist_ok=True)
        found = self._left_guest(place)
        if found is None:
            found = start_nested(self.host, (), evidence=place, append=LATE, timeout=_BOOT)
        return self._stack.enter_context(contextlib.closing(found))

    def _left_guest(self, place: Path) -> Nested | None:
        if self.host.left is None:
            return None
        try:
            return take_nested(self.host, (), evidence=place)
        except TimeStandsStill as error:
            log.warning("%s", error.summary)
            return None

    @property
    def guest(self) -> Guest:
        """Its system."""
        assert self.nested.guest is not None
        return self.nested.guest

    @property
    def machine(self) -> Machine:
        """Its machine."""
        return self.nested.machine

    @contextlib.contextmanager
    def given(self, virtual: PciFunction, sign: str, *, name: str = "vf") -> Iterator[Bdf]:
        """Have *virtual* assigned to the guest while inside; return where it is there.

        :param sign: what the guest shows below it when its driver has it (``net/*``).
        """
        with self.host.bound(virtual.bdf):
            with step("hot-add %s to %s", virtual.bdf, self.machine.spec.name):
                self.machine.add_device(
                    Device("vfio-pci", name, self.port, "0", {"host": str(virtual.bdf)})
                )
            try:
                yield behind(self.guest, self.port, sign)
            finally:
                if any(one.qdev_id == name for one in self.machine.functions()):
                    self.machine.remove_device(name)

    def close(self) -> None:
        """End the guest, then the host."""
        self._stack.close()


def behind(system: Guest | VirtualHost, port: str, sign: str, *, before: str = ":") -> Bdf:
    """Wait until the function behind *port* shows *sign* below it; return where it is.

    :param before: command given as soon as the function is there.
    """
    where = function_behind(port)
    said = system.run(
        f"probe await --timeout {_LONGEST} '{where}/config' >&2 && {before} &&"
        f" probe await --timeout {_LONGEST} '{where}/{sign}' >&2 && ls -d {where}",
        timeout=2 * _LONGEST + 10,
    ).stdout
    return Bdf.parse(said.strip().rpartition("/")[2])


def open_igb_stage(parts: Parts, *, key: RunKey, evidence: Path) -> SriovStage:
    """Open a virtual host with an igb that its driver has, link up, and a peer on its wire."""
    if not parts.l0_qemu.features.has_device("igb"):
        raise MissingDevice("the lab's QEMU has no igb", hint="--l0-qemu debian:trixie has")
    with ExitStack() as stack:
        directory = paths.runtime_dir()
        stack.callback(paths.remove_runtime_dir, directory)
        wire = stack.enter_context(contextlib.closing(Wire(directory)))
        host = stack.enter_context(
            contextlib.closing(
                open_virtual(
                    parts,
                    key=key,
                    evidence=evidence,
                    nested=guest_spec(parts.guest_files(key), append=LATE),
                    devices=("edu",),
                )
            )
        )
        machine = host.machine
        with step("plug an igb into %s", host.name):
            machine.qmp.execute("netdev_add", wire.netdev("wire"))
            machine.add_device(Device("igb", "igb", "rp2", "0", {"netdev": "wire", "romfile": ""}))
            bdf = behind(host, "rp2", "net/*", before="modprobe igb && modprobe igbvf")
            host.run(
                f"for n in /sys/bus/pci/devices/{bdf}/net/*; do ip link set ${{n##*/}} up; done"
            )
        return SriovStage(host, Sriov(host, bdf), evidence, wire, _stack=stack.pop_all())


def open_nvme_stage(parts: Parts, *, key: RunKey, evidence: Path) -> SriovStage:
    """Boot a virtual host with an nvme family: its controllers share one namespace.

    Windows of ports stay as firmware made them, and behind ``rp1`` there is a family (`WIDE`)
    that does not fit in them.
    """
    if not parts.l0_qemu.features.has_device(SUBSYSTEM.driver):
        raise MissingDevice(
            f"the lab's QEMU has no {SUBSYSTEM.driver}", hint="--l0-qemu debian:trixie has"
        )
    disk = evidence / "family.img"
    disk.write_bytes(bytes(DISK_BYTES))
    with ExitStack() as stack:
        host = stack.enter_context(
            contextlib.closing(
                open_virtual(
                    parts,
                    key=key,
                    evidence=evidence,
                    saved=False,
                    devices=(),
                    append="pci=realloc=off",
                    emulated=[
                        SUBSYSTEM,
                        Device("nvme-subsys", "wide"),
                        Device("nvme", "wide-nvme", "rp1", "0", WIDE),
                        Device("nvme", "nvme", "rp0", "0", NVME),
                        Device("nvme-ns", "space", "nvme", options={"drive": "space", "nsid": 1}),
                    ],
                    disks=[Disk("space", os.fspath(disk))],
                )
            )
        )
        bdf = behind(host, "rp0", "nvme/nvme*", before="modprobe nvme")
        stage = SriovStage(
            host, Sriov(host, bdf), evidence, disk=disk, port="rp0", _stack=stack.pop_all()
        )
        if not stage.family.has("totalvfs"):
            raise HostError(f"{bdf} of {host.name} has no sriov_totalvfs")
        return stage
