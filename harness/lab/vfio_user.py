"""Devices written in Python in front of real guests: machines whose QEMU has vfio-user-pci.

A `Stage` is a virtual host, or a small guest, with such devices in it. Two things are special:

- The QEMU that runs it must have ``vfio-user-pci`` (10.1). That is the lab's, or the one under
  test, or `FALLBACK`; every machine says which in its evidence.
- Its memory must be shared. QEMU gives the device the descriptor of the file that is behind it
  and leaves it at that: where memory is a private copy of a file, the device reads and writes
  the file, and the guest sees none of it (docs/findings/vfio-user-private-memory.md). So
  memory is an anonymous file here, and saved states keep it in their own file (``mapped``).
"""

from __future__ import annotations

import contextlib
import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.device.server import serve
from harness.errors import HarnessError, HostError, TimeStandsStill
from harness.guest.guest import Guest
from harness.guest.keys import RunKey
from harness.host.virtual import VirtualHost, log_in_over_forward, wait_until_ready
from harness.host.virtual_spec import (
    function_behind,
    nested_spec,
    root_ports,
    virtual_host_spec,
)
from harness.lab.assigned import Assigned
from harness.lab.hosts import OFF, methods, restored
from harness.lab.nested import AssignedDevices, Nested, guest_spec, properties_of, wake_left
from harness.lab.parts import Parts
from harness.lab.plugged import Plugged, Seat
from harness.lab.resident import LATE
from harness.lab.states import Rung
from harness.machine.command import Device, MachineSpec, Options, option_string
from harness.machine.machine import Machine
from harness.machine.saved_state import Method
from harness.model.version import QemuVersion
from harness.model.vfio.mapping import VfioOptions
from harness.step import step

log = logging.getLogger(__name__)

DRIVER = "vfio-user-pci"
FALLBACK = "debian:trixie-backports"
"""The build that runs these machines when neither the lab's nor the one under test can."""
PORT = "pcie-root-port"
PORTS = 8
"""Root ports of a virtual host for devices in Python."""
_LONGEST = 30
"""Seconds until a kernel must have found what was plugged."""


def parts_with_devices(parts: Parts) -> Parts:
    """Return *parts* with a lab's QEMU that has vfio-user-pci."""
    for spec in (parts.settings.qemu, parts.settings.l0_qemu, FALLBACK):
        chosen = Parts(parts.settings.model_copy(update={"l0_qemu": spec}), parts.images)
        if chosen.l0_qemu.features.has_device(DRIVER):
            return chosen
    raise HostError(f"{FALLBACK} has no {DRIVER}")


def shared_memory(spec: MachineSpec) -> MachineSpec:
    """Return *spec* with memory that a device behind a socket reaches by descriptor."""
    backend = option_string(
        "memory-backend-memfd", {"id": "memory", "size": f"{spec.memory_mib}M", "share": True}
    )
    return replace(
        spec,
        machine_options={**spec.machine_options, "memory-backend": "memory"},
        objects=(*spec.objects, backend),
    )


def open_device_host(
    parts: Parts,
    *,
    key: RunKey,
    evidence: Path,
    nested: MachineSpec | None = None,
    ports: Options | None = None,
) -> VirtualHost:
    """Open a virtual host without test devices, its root ports free for devices in Python.

    They are ``rp0`` to ``rp7``.

    :param parts: see `parts_with_devices`.
    :param nested: a guest that shall be up in it where hosts are saved, see
        `harness.lab.hosts.open_virtual`.
    :param ports: further properties of each port.
    """
    spec = virtual_host_spec(
        parts.host_files(), accel=parts.accelerator(evidence).option, devices=()
    )
    others = [device for device in spec.devices if device.driver != PORT]
    free = [replace(port, options={**port.options, **(ports or {})}) for port in root_ports(PORTS)]
    spec = replace(spec, devices=(*others, *free))
    return _open(parts, Rung(shared_memory(spec), nested), key, evidence)


def open_device_guest(parts: Parts, *, key: RunKey, evidence: Path) -> VirtualHost:
    """Open the small guest on this computer: no IOMMU, its root ports free.

    It is a `VirtualHost` for what it can: commands, and being saved. No QEMU lies in it.
    """
    spec = nested_spec(
        accel=parts.accelerator(evidence).option,
        kernel=str(parts.guest.vmlinuz),
        initrd=str(parts.guest.initrd),
        name="guest",
    )
    return _open(parts, Rung(shared_memory(spec)), key, evidence)


def _open(parts: Parts, rung: Rung, key: RunKey, evidence: Path) -> VirtualHost:
    if parts.settings.saved_state != OFF:
        ways = [way for way in methods(parts.settings.saved_state) if way is not Method.PRIVATE]
        host = restored(parts, rung, ways, key=key, evidence=evidence)
        if host is not None:
            return host
    return VirtualHost.boot(
        rung.host,
        l0_qemu=parts.l0_qemu,
        key=key,
        qemu=parts.placed_qemu(),
        guest=parts.guest_files(key),
        evidence=evidence,
    )


@dataclass
class Stage:
    """A machine with devices written in Python in it; closing it ends all of them."""

    host: VirtualHost
    qemu: QemuVersion
    """Of the machine."""
    plugged: dict[str, Plugged] = field(default_factory=dict)

    def plug(self, *seats: Seat) -> tuple[Plugged, ...]:
        """Serve devices, hot-add them, and return when the kernel shows and decodes each.

        Of one slot, function 0 comes last: with it the kernel looks for all of them.
        """
        new = []
        for seat in seats:
            served = serve(seat.device)
            plugged = Plugged(seat, served, self.host, self.qemu)
            self.plugged[seat.name] = plugged
            several = {"multifunction": True} if "." in seat.addr else {}
            device = Device(
                DRIVER, seat.name, seat.port, seat.addr, {**several, **seat.options},
                str(served.socket),
            )  # fmt: skip
            with step("plug %s into %s", seat.name, self.host.name):
                self.host.machine.add_device(device)
            new.append(plugged)
        with step("find %s on %s", ", ".join(seat.name for seat in seats), self.host.name):
            self.host.run(_find(seats), timeout=_LONGEST + 10)
        return tuple(new)

    def close(self) -> None:
        """End the machine, then its devices: so no guest meets a device that is gone."""
        with contextlib.ExitStack() as last_first:
            for plugged in self.plugged.values():
                last_first.callback(plugged.served.close)
            last_first.callback(self.host.close)
            last_first.callback(self._keep_kernel_log)

    def _keep_kernel_log(self) -> None:
        with contextlib.suppress(HarnessError):
            log = self.host.machine.evidence / "dmesg.log"
            log.write_text(self.host.kernel_log(), encoding="utf-8")


def _find(seats: Sequence[Seat]) -> str:
    """Return the shell text that waits for the functions at *seats* and lets them decode.

    A function shows itself before the kernel has found room for its BARs, and says nothing
    when it has. But it holds a lock until then, which looking at the bus again waits for.
    """
    signs, settle, enable = [], [], []
    for seat in seats:
        port = function_behind(seat.port)
        function = port.removesuffix("0") + (seat.addr.partition(".")[2] or "0")
        signs.append(f"{function}/config")
        buses = f"{port.rpartition('/')[0]}/pci_bus/*/rescan"
        settle.append(f"for b in {buses}; do echo 1 > $b; done")
        enable.append(f"for f in {function}; do echo 1 > $f/enable; done")
    wait = shlex.join(["probe", "await", "--timeout", str(_LONGEST), *signs])
    return "\n".join(["set -e", f"{wait} > /dev/null", *dict.fromkeys(settle), *enable])


def assign(
    stage: Stage,
    names: Mapping[str, VfioOptions],
    *,
    evidence: Path,
) -> Nested:
    """Give devices of *stage*, a virtual host, to a guest of its own by vfio-pci.

    The guest is the one that was left up in it, or is booted; devices are hot-added, each to a
    root port of its own.

    :param names: of plugged devices, with how each is assigned.
    """
    try:
        return _assign(stage, names, evidence)
    except TimeStandsStill as error:
        # Nothing is left in the host now: the next one boots.
        log.warning("%s", error.summary)
        return _assign(stage, names, evidence)


def _assign(stage: Stage, names: Mapping[str, VfioOptions], evidence: Path) -> Nested:
    host = stage.host
    functions = {name: stage.plugged[name].function() for name in names}
    for function in functions.values():
        if function.driver != "vfio-pci":
            host.bind(function.bdf, "vfio-pci")
    left = host.left
    machine = _machine_in(host, evidence)
    try:
        seats = [Seat(name, stage.plugged[name].device, f"rp{n}") for n, name in enumerate(names)]
        with step("hot-add %s to %s", ", ".join(names), machine.spec.name):
            for seat in seats:
                host_function = {"host": str(functions[seat.name].bdf)}
                properties = {**host_function, **properties_of(names[seat.name])}
                machine.add_device(Device("vfio-pci", seat.name, seat.port, "0", properties))
        if left is not None:
            guest = wake_left(host, machine, left)
        else:
            guest = Guest(machine, log_in_over_forward(machine, host.ssh, key=host.guest.key))
        with step("find %s on %s", ", ".join(names), machine.spec.name):
            guest.run(_find(seats), timeout=_LONGEST + 10)
    except BaseException:
        machine.kill()
        raise
    return Nested(
        host,
        machine,
        AssignedDevices(
            (name, Assigned(name, functions[name], host, machine, guest, options))
            for name, options in names.items()
        ),
        guest,
    )


def _machine_in(host: VirtualHost, evidence: Path) -> Machine:
    left, host.left = host.left, None
    if left is not None:
        spec = replace(left.spec, accel=host.accelerator.option)
        return host.take_over(spec, left.directory, evidence=evidence)
    machine = host.launch(
        guest_spec(host.guest, accel=host.accelerator.option, append=LATE), evidence=evidence
    )
    try:
        wait_until_ready(machine, timeout=180)
    except BaseException:
        machine.kill()
        raise
    return machine
