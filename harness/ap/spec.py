"""The machine of an AP host, as a value. Pure.

TCG has no AP instructions, so the kernel is told of their facilities on its command line
(arch/s390/boot/ipl_parm.c): 12 is QCI, 15 is the facilities test. 65, adapter interrupts, stays
off: nothing can inject them, and the AP bus polls then. ``nokaslr`` keeps addresses as found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.machine.command import Boot, Device, Disk, MachineSpec
from harness.model.ap.hardware import ApHardware, Card
from harness.model.ap.mask import ApMask

GDB, AGENT = "gdb", "agent"
"""Ids of the chardevs: of the gdbstub, of the agent's port."""
AGENT_PORT = "trapline.agent"
"""Name by which the guest finds the agent's port."""
FACILITIES = (12, 15)
MEMORY_MIB = 512
LABEL = "kernel real, adapters modelled, no SIE"
"""What every result on such a host says."""


@dataclass(frozen=True, slots=True)
class ApHostFiles:
    """Images of an AP host, as paths here.

    :param inner_qemu: disk to be mounted at ``/opt/qemu``; empty for none.
    """

    kernel: str
    initrd: str
    inner_qemu: str = ""


def default_hardware() -> ApHardware:
    """Return the adapters of the examples: three cards, four domains, a control domain more."""
    domains = (0x04, 0x47, 0xAB, 0xFF)
    return ApHardware(
        cards={4: Card(13), 5: Card(13), 6: Card(12)},
        domains=ApMask.of(domains),
        control_domains=ApMask.of((*domains, 0x10)),
    )


@dataclass(frozen=True, slots=True)
class ApHostSpec:
    """What shapes an AP host.

    :param hardware: its adapters when it boots.
    :param modules: set that is loaded: ``group`` or ``cdev``; empty for none.
    :param append: more words for the kernel: ``ap.apmask=…``.
    """

    files: ApHostFiles
    hardware: ApHardware = field(default_factory=default_hardware)
    modules: str = "group"
    append: str = ""
    memory_mib: int = MEMORY_MIB
    cpus: int = 1

    def machine(self, *, traps: bool = True) -> MachineSpec:
        """Return the machine.

        :param traps: somebody stands behind it who executes AP instructions; without, it has
            none and runs at once.
        """
        words = ["nokaslr", "console=ttysclp0", "panic=-1", "loglevel=5"]
        if traps:
            words.append(f"facilities={','.join(map(str, FACILITIES))}")
        if self.append:
            words.append(self.append)
        return MachineSpec(
            "ap-host",
            accel="tcg",
            machine="s390-ccw-virtio",
            cpu="max",
            cpus=self.cpus,
            memory_mib=self.memory_mib,
            devices=tuple(_devices(self.files)),
            disks=_disks(self.files),
            boot=Boot(self.files.kernel, self.files.initrd, " ".join(words)),
            paused=traps,
            streams=(AGENT, GDB),
            extra=("-gdb", f"chardev:{GDB}"),
        )


def _devices(files: ApHostFiles) -> list[Device]:
    devices = [
        Device("virtio-serial-ccw", "ports"),
        Device("virtserialport", "agent-port", bus="ports.0",
               options={"chardev": AGENT, "name": AGENT_PORT}),
    ]  # fmt: skip
    if files.inner_qemu:
        devices.append(
            Device("virtio-blk-ccw", "inner-qemu", options={"drive": "inner", "serial": "qemu"})
        )
    return devices


def _disks(files: ApHostFiles) -> tuple[Disk, ...]:
    return (Disk("inner", files.inner_qemu, read_only=True),) if files.inner_qemu else ()


def inner_spec(
    name: str,
    *,
    device: Mapping[str, str] | None = None,
    cpu: str = "host",
    accel: str = "kvm",
    memory_mib: int = 64,
) -> MachineSpec:
    """Return a machine for the QEMU inside an AP host; it never runs an instruction.

    :param device: properties of a vfio-ap device that is there from the start.
    """
    devices = (Device("vfio-ap", options=dict(device)),) if device is not None else ()
    return MachineSpec(
        name,
        accel=accel,
        machine="s390-ccw-virtio",
        cpu=cpu,
        memory_mib=memory_mib,
        devices=devices,
        # Else a reset, which is one of the things to look at, ends it.
        no_reboot=False,
        paused=True,
    )
