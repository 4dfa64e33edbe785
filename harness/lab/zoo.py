"""The devices of the zoo, all assigned to one machine that runs firmware only."""

from __future__ import annotations

from pathlib import Path

from harness.guest.keys import RunKey
from harness.host.host import Host
from harness.host.virtual_spec import nested_spec
from harness.host.zoo import PEERS, ZOO
from harness.lab.assigned import Assigned
from harness.lab.hosts import open_virtual
from harness.lab.nested import AssignedDevices, Nested
from harness.lab.parts import Parts


def open_zoo(parts: Parts, *, key: RunKey, evidence: Path) -> Nested:
    """Boot a virtual host with the zoo; assign all of it; wait until every BAR is programmed."""
    there = {
        name: one for name, one in ZOO.items() if parts.l0_qemu.features.has_device(one.driver)
    }
    place = evidence / "host"
    place.mkdir(exist_ok=True)
    host = open_virtual(
        parts,
        key=key,
        evidence=place,
        saved=False,
        devices=(),
        emulated=[*(one.device() for one in there.values()), *PEERS],
        objects=[one.backend for one in there.values() if one.backend],
    )
    try:
        found = assign_zoo(host, list(there), evidence=evidence)
    except BaseException:
        host.close()
        raise
    found.owns_host = True
    return found


def assign_zoo(
    host: Host, names: list[str], *, evidence: Path, **options: str | int | bool
) -> Nested:
    """Assign the devices *names* of a host that has the zoo to a machine."""
    functions = {name: host.function(ZOO[name].bdf) for name in names}
    for function in functions.values():
        if function.driver != "vfio-pci":
            host.bind(function.bdf, "vfio-pci")
    spec = nested_spec(accel=host.accelerator.option, memory_mib=64, name="zoo")
    spec = spec.adding(*(ZOO[name].assigned(**options) for name in names))
    machine = host.launch(spec, evidence=evidence)
    try:
        for name in names:
            machine.wait_until_mapped(name)
    except BaseException:
        machine.kill()
        raise
    devices = AssignedDevices(
        {name: Assigned(name, function, host, machine) for name, function in functions.items()}
    )
    return Nested(host, machine, devices)
