"""The machine that is a virtual host, and the machine that is a nested guest. Pure.

Addresses are fixed so that a function has the same BDF in every run. The virtual host's own
disk and network are virtio without ``iommu_platform``: they bypass the vIOMMU and stay out of
the way of what is being judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness.machine.command import Boot, Device, Disk, MachineSpec, Netdev
from harness.model.pci import PciId

SSH_FORWARD = "tcp:127.0.0.1:{port}-:22"
"""Port 0: QEMU takes a free loopback port and tells it in ``info usernet``."""

_QUIET = (
    "console=ttyS0 loglevel=5 random.trust_cpu=on rcupdate.rcu_expedited=1 mitigations=off"
    # A check against boards of old that a vCPU fails which gets no time: "timer doesn't work".
    " no_timer_check"
    # BARs that have a driver may be mapped by the probe too (CONFIG_IO_STRICT_DEVMEM).
    " iomem=relaxed"
)


@dataclass(frozen=True, slots=True)
class TestDevice:
    """An emulated device of the virtual host that is made to be assigned.

    Its slot there: ``bus`` and ``addr``. Its slot in the nested guest is the same, or
    ``guest_bus`` and 0.
    """

    __test__ = False  # pytest: not a test class

    name: str
    driver: str
    id: PciId
    bus: str
    addr: str
    guest_driver: str
    """Linux driver in the nested guest; empty if there is none."""
    options: Mapping[str, str | int | bool] = field(default_factory=dict)
    has_ports: bool = False
    """One of its BARs is in I/O space."""
    guest_bus: str = ""
    guest_sign: str = "config"
    """What appears below the function in the guest's sysfs when it is ready for use."""

    @property
    def comes_late(self) -> bool:
        """It can be hot-added; else it is there from the start, and found again (no state)."""
        return self.bus.startswith("rp")


TEST_DEVICES: Mapping[str, TestDevice] = {
    device.name: device
    for device in (
        TestDevice("nvme", "nvme", PciId(0x1B36, 0x0010), "rp0", "0", "nvme",
                   {"serial": "trapline", "drive": "nvme-disk"},
                   guest_sign="nvme/nvme*/nvme*n1"),
        TestDevice("e1000e", "e1000e", PciId(0x8086, 0x10D3), "rp1", "0", "e1000e",
                   {"netdev": "e1000e-net", "mac": "52:54:00:00:10:d3"},
                   has_ports=True, guest_sign="net/*"),
        TestDevice("igb", "igb", PciId(0x8086, 0x10C9), "rp2", "0", "igb",
                   {"netdev": "igb-net", "mac": "52:54:00:00:10:c9"},
                   has_ports=True, guest_sign="net/*"),
        TestDevice("edu", "edu", PciId(0x1234, 0x11E8), "pcie.0", "0xc", "",
                   {"dma_mask": "0xffffffffffffffff"}, guest_bus="rp4"),
    )
}  # fmt: skip
"""By name. Not every QEMU has every one: igb came with 8.0."""


@dataclass(frozen=True, slots=True)
class HostFiles:
    """Where the images of a virtual host lie; all are read, none is written."""

    kernel: str
    initrd: str
    root: str
    qemu: str
    guest: str
    modules: str = ""
    """Empty for a kernel with everything built in."""


INTEL_IOMMU = Device("intel-iommu", "iommu", options={"intremap": True, "caching-mode": True})


def virtual_host_spec(
    files: HostFiles,
    *,
    accel: str,
    nvme_disk: str = "",
    devices: Sequence[str] = tuple(TEST_DEVICES),
    memory_mib: int = 2048,
    iommu: Device | None = INTEL_IOMMU,
    append: str = "",
    ssh_port: int = 0,
) -> MachineSpec:
    """Return the machine of a virtual host.

    :param accel: value of ``-accel``.
    :param nvme_disk: raw file behind the nvme, written by tests; needed if it has one.
    :param devices: names from `TEST_DEVICES` that this QEMU has.
    :param ssh_port: loopback port that leads to its SSH; 0 for a free one.
    """
    chosen = [TEST_DEVICES[name] for name in devices]
    disks = [Disk("root", files.root, read_only=True), Disk("qemu", files.qemu, read_only=True),
             Disk("guest", files.guest, read_only=True)]  # fmt: skip
    if files.modules:
        disks.append(Disk("modules", files.modules, read_only=True))
    own = [
        Device("virtio-blk-pci", f"disk-{disk.id}", "pcie.0", f"0x{slot:x}",
               {"drive": disk.id, "serial": disk.id})
        for slot, disk in enumerate(disks, start=3)
    ]  # fmt: skip
    nic = Device("virtio-net-pci", "ssh-nic", "pcie.0", "0x2", {"netdev": "ssh", "romfile": ""})
    rng = Device("virtio-rng-pci", "rng", "pcie.0", "0x7")
    netdevs = [Netdev("ssh", options={"hostfwd": SSH_FORWARD.format(port=ssh_port)})]
    if "nvme" in devices:
        disks.append(Disk("nvme-disk", nvme_disk))
    netdevs += [backend for device in chosen for backend in network_of(device)]
    return MachineSpec(
        name="host",
        accel=accel,
        # TCG runs "rep stosb" a byte at a time: without ERMS the kernel clears pages in words.
        cpu="max,-erms,-fsrm" if accel.startswith("tcg") else "max",
        machine_options={"kernel-irqchip": "split"},
        memory_mib=memory_mib,
        iommu=iommu,
        devices=(nic, *own, rng, *root_ports(4), *(test_device(d) for d in chosen)),
        disks=tuple(disks),
        netdevs=tuple(netdevs),
        boot=Boot(
            files.kernel,
            files.initrd,
            f"{_QUIET} intel_iommu=on {append}".strip(),
        ),
        wakes=True,
    )


def test_device(device: TestDevice) -> Device:
    """Return the device as the virtual host's QEMU is given it."""
    rom = {"romfile": ""} if "netdev" in device.options else {}
    return Device(device.driver, device.name, device.bus, device.addr, {**device.options, **rom})


def network_of(device: TestDevice) -> tuple[Netdev, ...]:
    """Return the network backend that it needs, if any: one that leads nowhere."""
    name = device.options.get("netdev")
    return (Netdev(str(name), options={"restrict": True}),) if name else ()


def root_ports(count: int, *, first_slot: int = 8) -> tuple[Device, ...]:
    """Return ``rp0`` … on consecutive slots of the root bus, one chassis slot each."""
    return tuple(
        Device("pcie-root-port", f"rp{n}", "pcie.0", f"0x{first_slot + n:x}",
               {"chassis": n + 1, "slot": n + 1})
        for n in range(count)
    )  # fmt: skip


_MOST_PORTS = 8


def function_behind(port: str) -> str:
    """Return the pattern of the sysfs path of the function on root port *port*.

    The ports have the same slots in a host and in its guest; bus numbers come from firmware.
    """
    slot = next(int(one.addr, 0) for one in root_ports(_MOST_PORTS) if one.id == port)
    return f"/sys/bus/pci/devices/0000:00:{slot:02x}.0/0000:*:00.0"


def nested_spec(
    *,
    accel: str,
    kernel: str = "",
    initrd: str = "",
    iommu: Device | None = None,
    assigned: Sequence[Device] = (),
    memory_mib: int = 256,
    append: str = "",
    name: str = "nested",
) -> MachineSpec:
    """Return the machine of a nested guest (without *kernel*: firmware only).

    :param assigned: the vfio-pci devices, see `assigned_device`.
    """
    spec = MachineSpec(
        name=name,
        accel=accel,
        machine_options={"kernel-irqchip": "split"},
        memory_mib=memory_mib,
        iommu=iommu,
        devices=(*root_ports(5), *assigned),
    )
    if not kernel:
        return spec
    nic = Device("virtio-net-pci", "ssh-nic", "pcie.0", "0x2", {"netdev": "ssh", "romfile": ""})
    return replace(
        spec,
        devices=(nic, *spec.devices),
        netdevs=(Netdev("ssh", options={"hostfwd": SSH_FORWARD.format(port=0)}),),
        boot=Boot(kernel, initrd, f"{_QUIET} {append}".strip()),
        wakes=True,
    )


def assigned_device(
    name: str, host_bdf: str, *, options: Mapping[str, str | int | bool] | None = None
) -> Device:
    """Return the ``vfio-pci`` device that assigns *host_bdf* at the slot of test device *name*."""
    device = TEST_DEVICES[name]
    bus, addr = (device.guest_bus, "0") if device.guest_bus else (device.bus, device.addr)
    return Device("vfio-pci", name, bus, addr, {"host": host_bdf, **(options or {})})
