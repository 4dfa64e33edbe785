"""Machines that have one function, for tests of how they come to it and leave it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from harness.errors import QmpFailed
from harness.guest.keys import RunKey
from harness.host.host import Host
from harness.host.virtual_spec import nested_spec
from harness.lab.bare import Bare, bare_machine
from harness.lab.odd_host import OddHost, open_odd_host
from harness.lab.parts import Parts
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


@pytest.fixture(scope="session")
def odd(
    lab_parts: Parts, run_key: RunKey, shared_evidence: Callable[[str], Path]
) -> Iterator[OddHost]:
    """A virtual host with functions that no usual one has."""
    place = shared_evidence("odd-host")
    with closing(open_odd_host(lab_parts, key=run_key, evidence=place)) as opened:
        yield opened


class StartOdd(Protocol):
    """Starts a machine on the odd host; see `assign`."""

    def __call__(self, *devices: Device, name: str = "bare") -> Bare:
        """Return it."""


@pytest.fixture
def assign(odd: OddHost, evidence: Path) -> Iterator[StartOdd]:
    """Start a machine that executes nothing on the odd host; it ends with the test."""
    with ExitStack() as stack:

        def start(*devices: Device, name: str = "bare") -> Bare:
            place = evidence / name
            place.mkdir()
            return stack.enter_context(bare_machine(odd.host, *devices, evidence=place, name=name))

        yield start


def on_root_bus(name: str, slot: int, function: PciFunction, **options: str | bool) -> Device:
    """Return the device that assigns *function* in *slot* of the root bus."""
    device = Device("vfio-pci", name, "pcie.0", f"{slot:#x}", {"host": str(function.bdf)})
    return device.having(**options)


def check_any(said: str, *words: str) -> None:
    """QEMU refused, in one of these ways."""
    assert any(way in said for way in words), said or "QEMU accepted it"
