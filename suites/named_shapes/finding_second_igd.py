"""A defect of QEMU 10.0, shown: a second Intel graphics function ends the machine.

Not part of a default run; see docs/findings/second-igd-ends-qemu.md.
"""

from dataclasses import replace
from pathlib import Path

from harness.errors import MachineDied, QmpFailed
from harness.host.virtual_spec import nested_spec
from harness.machine.command import Device
from harness.machine.machine import Machine
from suites.named_shapes.conftest import Prepared

PORTS = {"igd-9": "rp0", "igd-12": "rp1"}


def survives(machine: Machine, device: Device) -> bool:
    """Hot-add *device*; say whether QEMU is there afterwards."""
    try:
        machine.add_device(device)
    except MachineDied:
        return False
    except QmpFailed as refusal:
        return bool(refusal.error_class)
    return True


def test_second_graphics_function_is_taken_or_refused(
    shape_host: Prepared, evidence: Path
) -> None:
    """Hot-adding a device never ends QEMU, whatever becomes of the device."""
    there = shape_host.there
    functions = there.bound(*PORTS)
    spec = nested_spec(accel=there.host.accelerator.option, memory_mib=64, name="graphics")
    with there.host.launch(replace(spec, paused=True), evidence=evidence) as machine:
        outcomes = {}
        for name, port in PORTS.items():
            device = Device("vfio-pci", name, port, "0", {"host": str(functions[name].bdf)})
            outcomes[name] = survives(machine, device.having(x_igd_opregion=False))

    assert outcomes == {"igd-9": True, "igd-12": True}
