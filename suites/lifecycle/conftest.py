"""Machines that have one function, for tests of how they come to it and leave it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from harness.errors import QmpFailed
from harness.host.host import Host
from harness.host.virtual_spec import nested_spec
from harness.lab.bare import Bare, bare_machine
from harness.machine.command import Device, MachineSpec
from harness.machine.machine import Machine
from harness.model.pci import PciFunction


def spec_with(host: Host, *devices: Device, name: str = "attach") -> MachineSpec:
    """Return a machine with *devices* that executes nothing."""
    # All of its memory is pinned for its devices: what it has of it takes time.
    spec = nested_spec(accel=host.accelerator.option, assigned=devices, memory_mib=64, name=name)
    return replace(spec, paused=True)


def answer_to(machine: Machine, command: str, **arguments: object) -> str:
    """Give a QMP command; return what QEMU said against it, '' if it did it."""
    try:
        machine.qmp.execute(command, arguments)
    except QmpFailed as refused:
        if not refused.error_class:  # no answer is not a no
            raise
        return refused.description
    return ""


class StartBare(Protocol):
    """Starts a machine that executes nothing; see `bare`."""

    def __call__(
        self,
        *devices: Device,
        name: str = "bare",
        iommu: Device | None = None,
        words: Sequence[str] = (),
    ) -> Bare:
        """Return it."""


@pytest.fixture
def bare(host: Host, evidence: Path) -> Iterator[StartBare]:
    """Start a machine whose registers the test writes; it ends with the test."""
    with ExitStack() as stack:

        def start(
            *devices: Device,
            name: str = "bare",
            iommu: Device | None = None,
            words: Sequence[str] = (),
        ) -> Bare:
            place = evidence / name
            place.mkdir()
            return stack.enter_context(
                bare_machine(host, *devices, evidence=place, name=name, iommu=iommu, words=words)
            )

        yield start


def on_root_bus(name: str, slot: int, function: PciFunction, **options: str | bool) -> Device:
    """Return the device that assigns *function* in *slot* of the root bus."""
    device = Device("vfio-pci", name, "pcie.0", f"{slot:#x}", {"host": str(function.bdf)})
    return device.having(**options)


def check_any(said: str, *words: str) -> None:
    """QEMU refused, in one of these ways."""
    assert any(way in said for way in words), said or "QEMU accepted it"
