"""Accelerators: which there are, what they count, what QEMU says of one that is not there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.guest.system import System
from harness.host.accelerator import Accel
from harness.host.host import Host
from harness.host.virtual import VirtualHost
from harness.lab.parts import Parts, ThisComputer
from harness.machine.command import MachineSpec
from harness.machine.machine import Machine
from harness.suite_fixtures import Attempt, Launch
from harness.testing import must_fail

pytestmark = pytest.mark.full

NODE = "/dev/kvm"
NO_MODULE = "Could not access KVM kernel module: No such file or directory"
NO_KVM = "failed to initialize kvm: No such file or directory"


def small(accel: str, *extra: str) -> MachineSpec:
    """Return a machine that never runs."""
    return MachineSpec("small", accel=accel, memory_mib=16, paused=True, extra=extra)


def runs_by_kvm(machine: Machine) -> bool:
    """Say whether KVM runs it, as QMP says."""
    return bool(machine.qmp.execute("query-kvm")["enabled"])


def check_counts(machine: Machine, *, kvm: bool) -> None:
    """There are counters of vCPUs if and only if KVM runs it."""
    assert bool(machine.statistics()) == kvm, f"{len(machine.statistics())} counters"


@pytest.mark.rule("ENV-05")
def test_only_kvm_counts(launch: Launch, host: Host) -> None:
    """``query-stats`` has counters of a vCPU under KVM, and none under TCG."""
    machine = launch(small(host.accelerator.option))

    check_counts(machine, kvm=runs_by_kvm(machine))


@pytest.mark.negative_control("ENV-05")
def test_counters_of_the_other_accelerator_are_noticed(launch: Launch, host: Host) -> None:
    """The check fails if the other accelerator is said to run the machine."""
    machine = launch(small(host.accelerator.option))

    with must_fail():
        check_counts(machine, kvm=not runs_by_kvm(machine))


def usable(system: System) -> bool:
    """Let code run through the node, and say whether a processor did it."""
    said = system.probe("kvm", "--deadline", "10", timeout=40, check=False)
    return said.get("kvm") == "ok" and said.get("hardware") != "no"


def check_planned(accel: Accel, *, works: bool) -> None:
    """KVM is planned if and only if it works."""
    assert (accel is Accel.KVM) == works, f"planned {accel.value}, KVM works: {works}"


@pytest.mark.rule("ENV-09")
def test_kvm_is_planned_where_it_runs_code(host: Host) -> None:
    """What runs guests of a host is decided by code that ran through /dev/kvm."""
    check_planned(host.accelerator.accel, works=usable(host))


@pytest.mark.rule("ENV-09")
def test_kvm_of_this_computer_is_planned_so_too(parts: Parts, evidence: Path) -> None:
    """A /dev/kvm of this computer that lets code run, but not by a processor, is no plan."""
    check_planned(parts.accelerator(evidence).accel, works=usable(ThisComputer(parts.probe)))


@pytest.mark.negative_control("ENV-09")
def test_a_plan_against_what_ran_is_noticed(host: Host) -> None:
    """The accelerator that the host has not chosen fails the check."""
    other = Accel.TCG if host.accelerator.accel is Accel.KVM else Accel.KVM

    with must_fail():
        check_planned(other, works=usable(host))


@pytest.fixture
def without_kvm(virtual_host: VirtualHost) -> Iterator[VirtualHost]:
    """The virtual host, its /dev/kvm out of sight."""
    with contextlib.ExitStack() as back:
        if virtual_host.exists(NODE):
            virtual_host.run(f"mv {NODE} {NODE}-away")
            back.callback(virtual_host.run, f"mv {NODE}-away {NODE}")
        yield virtual_host


def check_no_kvm(said: str) -> None:
    """QEMU names the module, then the accelerator."""
    assert NO_MODULE in said and NO_KVM in said, said or "QEMU accepted it"


def check_taken_over(said: str) -> None:
    """QEMU has started: another accelerator runs the machine."""
    assert not said, f"QEMU refused: {said}"


@pytest.mark.rule("ENV-10")
@pytest.mark.negative_control("ENV-10")
def test_kvm_that_is_not_there_is_refused(without_kvm: VirtualHost, attempt: Attempt) -> None:
    """Without /dev/kvm QEMU refuses ``-accel kvm`` in two lines: nothing takes over untold."""
    said = attempt(without_kvm, small("kvm"))

    check_no_kvm(said)
    with must_fail():
        check_taken_over(said)


@pytest.mark.negative_control("ENV-10")
def test_an_accelerator_that_is_there_is_noticed(
    without_kvm: VirtualHost, attempt: Attempt
) -> None:
    """TCG is there without it, and the check fails."""
    with must_fail():
        check_no_kvm(attempt(without_kvm, small("tcg")))


@pytest.mark.rule("ENV-10")
def test_a_second_accelerator_takes_over(without_kvm: VirtualHost, attempt: Attempt) -> None:
    """Told ``-accel kvm -accel tcg``, QEMU runs without KVM, which is not there."""
    check_taken_over(attempt(without_kvm, small("kvm", "-accel", "tcg")))
