"""Machines that have one function, for tests of how they come to it and leave it."""

from __future__ import annotations

from dataclasses import replace

from harness.host.host import Host
from harness.host.virtual_spec import nested_spec
from harness.machine.command import Device, MachineSpec


def spec_with(host: Host, *devices: Device, name: str = "attach") -> MachineSpec:
    """Return a machine with *devices* that executes nothing."""
    spec = nested_spec(accel=host.accelerator.option, assigned=devices, name=name)
    return replace(spec, paused=True)


def check_any(said: str, *words: str) -> None:
    """QEMU refused, in one of these ways."""
    assert any(way in said for way in words), said or "QEMU accepted it"
