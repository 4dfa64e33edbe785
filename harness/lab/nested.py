"""Starting nested machines with functions assigned to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostError
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

    :raise HostError: the host has no such device.
    """
    there = {function.id: function for function in reversed(host.functions())}
    found: dict[str, PciFunction] = {}
    for name in names:
        wanted = TEST_DEVICES[name].id
        if wanted not in there:
            raise HostError(f"{host.name} has no {name} ({wanted})")
        found[name] = there[wanted]
        if found[name].driver != "vfio-pci":
            host.bind(found[name].bdf, "vfio-pci")
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
    append: str = "",
    timeout: float = 180,
) -> Nested:
    """Start the QEMU under test with the test devices *names* assigned.

    :param boot: boot the guest and log in; else firmware only programs the BARs.
    :param options: what *properties* mean for the map.
    :param properties: further properties of every vfio-pci device (``x-no-mmap``).
    """
    functions = prepare(host, names)
    spec = nested_spec(
        accel=host.accelerator.option,
        kernel=host.guest.kernel if boot else "",
        initrd=host.guest.initrd,
        key=host.guest.key,
        iommu=iommu,
        assigned=[
            assigned_device(name, str(function.bdf), options=properties)
            for name, function in functions.items()
        ],
        append=append,
    )
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
            {
                name: Assigned(name, function, host, machine, guest, options or VfioOptions())
                for name, function in functions.items()
            },
            guest,
        )
    except BaseException:
        machine.kill()
        raise
