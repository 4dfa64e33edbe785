"""Starting nested machines with functions assigned to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import MissingDevice
from harness.guest.guest import Guest
from harness.guest.ssh import SshTransport
from harness.host.host import Host
from harness.host.virtual import log_in_over_forward
from harness.host.virtual_spec import TEST_DEVICES, assigned_device, nested_spec
from harness.lab.assigned import Assigned
from harness.machine.command import Device
from harness.machine.machine import Machine
from harness.model.pci import PciFunction
from harness.model.vfio_mapping import VfioOptions

WHO_HAS_IT = (
    "a lab QEMU that has it would enable this (--l0-qemu debian:trixie), or a host with the"
    " hardware"
)


class AssignedDevices(dict[str, Assigned]):
    """The assigned functions by name; one that is not there is no mistake of the test."""

    def __missing__(self, name: str) -> Assigned:
        raise MissingDevice(f"the host has no {name}", hint=WHO_HAS_IT)


@dataclass(slots=True)
class Nested:
    """A machine on the host, what is assigned to it, and its guest if one was booted."""

    machine: Machine
    assigned: Mapping[str, Assigned]
    guest: Guest | None = None

    def close(self) -> None:
        """End it."""
        if self.guest is not None:
            self.guest.close()
        self.machine.kill()


def prepare(host: Host, names: Sequence[str]) -> dict[str, PciFunction]:
    """Have the test devices *names* with vfio-pci; return them as the host sees them.

    What is with vfio-pci already stays; what is bound here is put back when the host closes.

    :raise MissingDevice: the host has no such device.
    :raise NoIommu: it has, but cannot assign it.
    """
    there = {function.id: function for function in reversed(host.functions())}
    found: dict[str, PciFunction] = {}
    for name in names:
        wanted = TEST_DEVICES[name].id
        if wanted not in there:
            raise MissingDevice(f"{host.name} has no {name} ({wanted})", hint=WHO_HAS_IT)
        found[name] = there[wanted]
        host.claim(found[name].bdf)
        if found[name].driver != "vfio-pci":
            host.bind(found[name].bdf, "vfio-pci")
    return found


def properties_of(options: VfioOptions | None) -> dict[str, str | bool]:
    """Return the properties of ``-device vfio-pci`` that *options* stand for.

    Options of the machine and those that take a value of their own are left to the caller.
    """
    if options is None:
        return {}
    found: dict[str, str | bool] = {}
    if options.no_mmap:
        found["x-no-mmap"] = True
    if options.msix_relocation is not None:
        found["x-msix-relocation"] = f"bar{options.msix_relocation}"
    if options.vga:
        found["x-vga"] = True
    if options.no_geforce_quirks:
        found["x-no-geforce-quirks"] = True
    return found


def start_nested(
    host: Host,
    names: Sequence[str],
    *,
    evidence: Path,
    boot: bool = True,
    options: VfioOptions | None = None,
    iommu: Device | None = None,
    properties: Mapping[str, str | int | bool] | None = None,
    each: Mapping[str, VfioOptions] | None = None,
    append: str = "",
    emulated: Sequence[Device] = (),
    extra: Sequence[str] = (),
    timeout: float = 180,
) -> Nested:
    """Start the QEMU under test with the test devices *names* assigned.

    :param boot: boot the guest and log in; else firmware only programs the BARs.
    :param options: what *properties* mean for the map.
    :param properties: further properties of every vfio-pci device (``x-no-mmap``).
    :param each: options of single devices, by name, with the properties they stand for.
    """
    functions = prepare(host, names)
    chosen = {name: (each or {}).get(name, options or VfioOptions()) for name in names}
    spec = nested_spec(
        accel=host.accelerator.option,
        kernel=host.guest.kernel if boot else "",
        initrd=host.guest.initrd,
        key=host.guest.key,
        iommu=iommu,
        assigned=[
            assigned_device(
                name,
                str(function.bdf),
                options={**properties_of((each or {}).get(name)), **(properties or {})},
            )
            for name, function in functions.items()
        ],
        append=append,
    )
    spec = replace(spec.adding(*emulated), extra=tuple(extra))
    machine = host.launch(spec, evidence=evidence)
    try:
        guest = None
        if boot:
            via = host.transport if isinstance(host.transport, SshTransport) else None
            transport = log_in_over_forward(
                machine, via, key=host.guest.private_key, timeout=timeout
            )
            guest = Guest(machine, transport)
        else:
            for name in names:
                machine.wait_until_mapped(name)
        return Nested(
            machine,
            AssignedDevices(
                (name, Assigned(name, function, host, machine, guest, chosen[name]))
                for name, function in functions.items()
            ),
            guest,
        )
    except BaseException:
        machine.kill()
        raise
