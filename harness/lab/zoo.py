"""The devices of the zoo, all assigned to one machine that runs firmware only, or none."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from harness.guest.keys import RunKey
from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import nested_spec
from harness.host.zoo import PEERS, ZOO
from harness.lab.assigned import Assigned
from harness.lab.hosts import open_virtual
from harness.lab.nested import AssignedDevices, Nested
from harness.lab.parts import Parts
from harness.lab.shape_host import ShapeHost
from harness.model.pci import PciFunction


def open_zoo(parts: Parts, *, key: RunKey, evidence: Path) -> Nested:
    """Boot a virtual host with the zoo; assign all of it; wait until every BAR is programmed."""
    host, there = _open_host(parts, key=key, evidence=evidence)
    try:
        found = assign_zoo(host, there, evidence=evidence)
    except BaseException:
        host.close()
        raise
    found.owns_host = True
    return found


def open_bare_zoo(parts: Parts, *, key: RunKey, evidence: Path) -> ShapeHost:
    """Boot a virtual host with the zoo, ``slots`` names what it has.

    `ShapeHost.machine` assigns it to a machine whose vCPU reads what it is told.
    """
    host, there = _open_host(parts, key=key, evidence=evidence)
    stack = ExitStack()
    stack.callback(host.close)
    try:
        _bound(host, there)
    except BaseException:
        stack.close()
        raise
    return ShapeHost(host, {}, {}, {name: ZOO[name].slot for name in there}, stack)


def _bound(host: Host, names: list[str]) -> dict[str, PciFunction]:
    """Have the devices *names* with vfio-pci; return them as they were, by name."""
    functions = {name: host.function(ZOO[name].bdf) for name in names}
    for function in functions.values():
        if function.driver != "vfio-pci":
            host.bind(function.bdf, "vfio-pci")
    return functions


def _open_host(parts: Parts, *, key: RunKey, evidence: Path) -> tuple[VirtualHost, list[str]]:
    """Boot a virtual host with what its QEMU has of the zoo; return the names as well."""
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
    return host, list(there)


def assign_zoo(
    host: Host, names: list[str], *, evidence: Path, **options: str | int | bool
) -> Nested:
    """Assign the devices *names* of a host that has the zoo to a machine."""
    functions = _bound(host, names)
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
