"""The QEMU command line as a value: a `MachineSpec` in, a list of words out. Pure.

Every device has an id and, on a PCI bus, an address: names in ``info mtree`` are not unique,
so attribution rests on ids, and default slots change between versions (rules MT-26, ENV-06).
The vIOMMU comes first: vfio-pci takes its DMA address space when it is realised (VTD-25).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

Options = Mapping[str, str | int | bool]


def _word(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).replace(",", ",,")  # QemuOpts doubles a comma inside a value


def option_string(head: str, options: Options) -> str:
    """Return ``head,key=value,…`` with booleans as on/off and commas doubled."""
    return ",".join([head, *(f"{key}={_word(value)}" for key, value in options.items())])


@dataclass(frozen=True, slots=True)
class Device:
    """One ``-device``.

    :param driver: QEMU's name of it.
    :param id: joins command line, QMP and the owners in ``info mtree -o``; empty only for
        devices QEMU forbids or that a refusal test needs without.
    :param bus: id of the bus, e.g. ``pcie.0``, ``rp0``.
    :param addr: slot, or slot.function, in hex.
    """

    driver: str
    id: str = ""
    bus: str = ""
    addr: str = ""
    options: Options = field(default_factory=dict)
    socket: str = ""
    """Unix socket of the process that is the device (``vfio-user-pci``)."""

    def arguments(self) -> dict[str, object]:
        """Return its properties as `device_add` and ``-device`` want them."""
        address = {"socket": {"type": "unix", "path": self.socket}} if self.socket else {}
        return {**self._place(), **address, **self.options}

    def having(self, **options: str | int | bool) -> Device:
        """Return a copy with *options* added (``_`` in a name stands for ``-``)."""
        added = {key.replace("_", "-"): value for key, value in options.items()}
        return replace(self, options={**self.options, **added})

    def __str__(self) -> str:
        if self.socket:  # an address of a socket cannot be said as key=value
            return json.dumps({"driver": self.driver, **self.arguments()})
        return option_string(self.driver, {**self._place(), **self.options})

    def _place(self) -> dict[str, str]:
        named = {"id": self.id, "bus": self.bus, "addr": self.addr}
        return {key: value for key, value in named.items() if value}


@dataclass(frozen=True, slots=True)
class Disk:
    """A block backend; the device that shows it names it by ``drive=ID``."""

    id: str
    path: str
    read_only: bool = False
    options: Options = field(default_factory=dict)

    def __str__(self) -> str:
        head: dict[str, str | int | bool] = {
            "id": self.id, "if": "none", "format": "raw", "file": self.path,
        }  # fmt: skip
        if self.read_only:
            head["readonly"] = True
        return ",".join(f"{k}={_word(v)}" for k, v in (head | dict(self.options)).items())


@dataclass(frozen=True, slots=True)
class Netdev:
    """A network backend: ``user`` with a loopback port for SSH, or a ``socket`` pair."""

    id: str
    kind: str = "user"
    options: Options = field(default_factory=dict)

    def __str__(self) -> str:
        return option_string(self.kind, {"id": self.id, **self.options})


@dataclass(frozen=True, slots=True)
class Boot:
    """Direct kernel boot."""

    kernel: str
    initrd: str = ""
    append: str = ""


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """All that makes one machine, apart from where its sockets and logs are."""

    name: str
    accel: str = "tcg"
    """``kvm``, ``tcg``, ``tcg,thread=multi``, ``qtest``."""
    machine: str = "q35"
    machine_options: Options = field(default_factory=dict)
    cpu: str = "max"
    cpus: int = 1
    memory_mib: int = 256
    iommu: Device | None = None
    devices: tuple[Device, ...] = ()
    disks: tuple[Disk, ...] = ()
    netdevs: tuple[Netdev, ...] = ()
    objects: tuple[str, ...] = ()
    boot: Boot | None = None
    no_reboot: bool = True
    wakes: bool = False
    """Has a second serial port, over which a system of ours is told who may log in."""
    paused: bool = False
    """Start with ``-S``: no instruction runs before ``cont``."""
    streams: tuple[str, ...] = ()
    """Ids of further chardevs, for what names them: a socket each, see `Sockets.stream`."""
    extra: tuple[str, ...] = ()

    def adding(self, *devices: Device) -> MachineSpec:
        """Return a copy with *devices* behind those there are."""
        return replace(self, devices=self.devices + devices)

    def saying(self, *words: str) -> MachineSpec:
        """Return a copy with *words* at the end of the command line."""
        return replace(self, extra=self.extra + words)


@dataclass(frozen=True, slots=True)
class Sockets:
    """Where QEMU makes its sockets and logs, on the system that it runs on."""

    directory: str

    @property
    def qmp(self) -> str:
        """The harness's QMP."""
        return f"{self.directory}/qmp.sock"

    @property
    def qmp_debug(self) -> str:
        """A second QMP, for a person (or drgn) looking at a hung machine."""
        return f"{self.directory}/qmp-debug.sock"

    @property
    def console(self) -> str:
        """First serial port."""
        return f"{self.directory}/console.sock"

    @property
    def console_log(self) -> str:
        """What the serial port said, written by QEMU even when nobody reads."""
        return f"{self.directory}/console.log"

    @property
    def wake(self) -> str:
        """Second serial port, see `harness.guest.wake`."""
        return f"{self.directory}/wake.sock"

    def stream(self, name: str) -> str:
        """Socket of the chardev *name* (`MachineSpec.streams`)."""
        return f"{self.directory}/{name}.sock"

    @property
    def stderr(self) -> str:
        """What QEMU says."""
        return f"{self.directory}/qemu.log"

    @property
    def trace(self) -> str:
        """Trace events. A file always: a full pipe on stderr stalls QEMU (ENV-16)."""
        return f"{self.directory}/trace.log"


def command_line(spec: MachineSpec, sockets: Sockets) -> list[str]:
    """Return the words behind the QEMU binary for *spec*.

    ``-nodefaults`` always, so that the memory map is reproducible (ENV-13).
    """
    # fmt: off
    words = [
        "-name", spec.name,
        "-nodefaults", "-no-user-config", "-display", "none",
        "-machine", option_string(spec.machine, spec.machine_options),
        "-accel", spec.accel,
        "-cpu", spec.cpu,
        "-smp", str(spec.cpus),
        "-m", str(spec.memory_mib),
        "-msg", "timestamp=on",
        "-D", sockets.trace,
        *_monitor("qmp", sockets.qmp), *_monitor("qmp-debug", sockets.qmp_debug),
        "-chardev", f"socket,id=console,path={sockets.console},server=on,wait=off,"
                    f"logfile={sockets.console_log}",
        "-serial", "chardev:console",
    ]
    # fmt: on
    if spec.wakes:
        words += ["-chardev", f"socket,id=wake,path={sockets.wake},server=on,wait=off"]
        words += ["-serial", "chardev:wake"]
    for name in spec.streams:
        words += ["-chardev", f"socket,id={name},path={sockets.stream(name)},server=on,wait=off"]
    for text in spec.objects:
        words += ["-object", text]
    if spec.iommu is not None:
        words += ["-device", str(spec.iommu)]
    for disk in spec.disks:
        words += ["-drive", str(disk)]
    for netdev in spec.netdevs:
        words += ["-netdev", str(netdev)]
    for device in spec.devices:
        words += ["-device", str(device)]
    if spec.boot is not None:
        words += _boot(spec.boot)
    if spec.no_reboot:
        words += ["-no-reboot"]
    if spec.paused:
        words += ["-S"]
    return [*words, *spec.extra]


def _monitor(name: str, path: str) -> Sequence[str]:
    return (
        "-chardev", f"socket,id={name},path={path},server=on,wait=off",
        "-mon", f"chardev={name},mode=control",
    )  # fmt: skip


def _boot(boot: Boot) -> list[str]:
    words = ["-kernel", boot.kernel]
    if boot.initrd:
        words += ["-initrd", boot.initrd]
    if boot.append:
        words += ["-append", boot.append]
    return words
