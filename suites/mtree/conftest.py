"""Machines whose ``info mtree`` is read: paused before the first instruction, and resident."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.host.host import Host
from harness.host.virtual_spec import root_ports
from harness.lab.dump import Dump, read_dump
from harness.lab.nested import Nested
from harness.machine.command import Device, MachineSpec
from harness.machine.machine import Machine


def _spec(name: str, accel: str) -> MachineSpec:
    """Return a machine with what makes a map rich: a vIOMMU, bridges, two equal devices."""
    nics = [
        Device("e1000e", f"nic{n}", f"rp{n}", "0", {"romfile": ""}) for n in range(2)
    ]  # fmt: skip
    return MachineSpec(
        name,
        accel=accel,
        machine_options={"kernel-irqchip": "split"} if accel == "kvm" else {},
        memory_mib=64,
        iommu=Device("intel-iommu", "iommu", options={"intremap": accel == "kvm"}),
        devices=(*root_ports(2), *nics, Device("edu", "edu", "pcie.0", "0xc")),
        paused=True,
    )


@pytest.fixture(scope="session")
def paused_spec(host: Host) -> MachineSpec:
    """A machine that never runs an instruction."""
    return _spec("paused", host.accelerator.option)


@pytest.fixture(scope="session")
def paused(
    host: Host, paused_spec: MachineSpec, shared_evidence: Callable[[str], Path]
) -> Iterator[Machine]:
    """That machine, started."""
    with host.launch(paused_spec, evidence=shared_evidence("mtree-paused")) as machine:
        yield machine


@pytest.fixture(scope="session")
def emulated(host: Host, shared_evidence: Callable[[str], Path]) -> Iterator[Machine]:
    """The same machine under TCG."""
    evidence = shared_evidence("mtree-emulated")
    with host.launch(_spec("emulated", "tcg"), evidence=evidence) as machine:
        yield machine


@pytest.fixture
def dump(request: pytest.FixtureRequest, paused_dump: Dump, resident_dump: Dump) -> Dump:
    """What a machine says: ``paused`` or ``resident``, by parameter."""
    return {"paused": paused_dump, "resident": resident_dump}[request.param]


@pytest.fixture
def resident_dump(nested: Nested) -> Dump:
    """What the resident guest's machine says."""
    return read_dump(nested.machine)


@pytest.fixture(scope="session")
def paused_dump(paused: Machine) -> Dump:
    """What the paused machine says."""
    return read_dump(paused)


@pytest.fixture(scope="session")
def emulated_dump(emulated: Machine) -> Dump:
    """What the machine under TCG says."""
    return read_dump(emulated)


@pytest.fixture
def paused_again(host: Host, paused_spec: MachineSpec, evidence: Path) -> Iterator[Machine]:
    """The paused machine, started a second time."""
    with host.launch(paused_spec, evidence=evidence) as machine:
        yield machine
