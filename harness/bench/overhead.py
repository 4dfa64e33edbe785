"""Benchmark ``overhead``: what the harness adds to a test, and to a refusal by QEMU."""

from __future__ import annotations

import shlex
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from harness.bench.laboratory import Laboratory
from harness.bench.model import Benchmark, Measure, Role, Sample, Subject
from harness.bench.pytest_runs import run_made
from harness.errors import LaunchFailed, MachineError
from harness.host.virtual import VirtualHost
from harness.host.virtual_spec import assigned_device, nested_spec
from harness.lab.hosts import open_virtual
from harness.machine.command import MachineSpec, Sockets, command_line

OURS = "trapline"
BY_HAND = "by hand"
EMPTY = "each empty test"
REFUSAL = "refusal"
TESTS = 40
REFUSALS = 5
"""In one measurement, which is their mean: each takes half a second."""
_NOWHERE = "0000:7f:1f.7"

EMPTY_TESTS = f"""
import pytest

@pytest.mark.parametrize("number", range({TESTS}))
def test_empty(number{{fixtures}}):
    pass
"""


def overhead(lab: Laboratory, stack: ExitStack) -> Benchmark:
    """Return the benchmark; its host lives as long as *stack*."""
    place = lab.work / "host-of-overhead"
    place.mkdir(exist_ok=True)
    host = open_virtual(lab.parts, key=lab.key, evidence=place)
    stack.callback(host.close)
    return Benchmark(
        name="overhead",
        title="what the harness adds to a test",
        measures=(Measure(EMPTY), Measure(REFUSAL)),
        subjects=(
            Subject(OURS, Role.OURS, lambda at: _ours(lab, host, at)),
            Subject(BY_HAND, Role.FLOOR, lambda at: _by_hand(lab, host, at)),
        ),
        notes=(
            f"{EMPTY}: of {TESTS} that take the fixtures host and nested, from the second on;"
            " by hand: pytest alone, no fixtures",
            f"{REFUSAL}: QEMU is started on the host with a device that is not there, and refuses;"
            " by hand: the same words as one command over the same SSH",
        ),
    )


def _ours(lab: Laboratory, host: VirtualHost, place: Path) -> Sample:
    tests = EMPTY_TESTS.format(fixtures=", host, nested")
    refused = 0.0
    for number in range(REFUSALS):
        evidence = place / f"refusal-{number}"
        evidence.mkdir()
        refused += _refused(host, evidence)
    return {EMPTY: run_made(lab, place, tests, expected=TESTS).each, REFUSAL: refused / REFUSALS}


def _by_hand(lab: Laboratory, host: VirtualHost, place: Path) -> Sample:
    tests = EMPTY_TESTS.format(fixtures="")
    refused = sum(_refused_by_hand(host) for _ in range(REFUSALS)) / REFUSALS
    return {
        EMPTY: run_made(lab, place, tests, expected=TESTS, is_bare=True).each,
        REFUSAL: refused,
    }


def impossible(accel: str) -> MachineSpec:
    """Return a machine that QEMU refuses: its vfio-pci names no device of the host. Pure."""
    spec = nested_spec(accel=accel, assigned=[assigned_device("nvme", _NOWHERE)], name="refused")
    return replace(spec, paused=True)


def _refused(host: VirtualHost, evidence: Path) -> float:
    spec = impossible(host.accelerator.option)
    began = time.monotonic()
    try:
        machine = host.launch(spec, evidence=evidence)
    except LaunchFailed as error:
        if error.exit_status == 1:
            return time.monotonic() - began
        raise
    machine.kill()
    raise MachineError("QEMU accepted a device that is not there", evidence=evidence)


def _refused_by_hand(host: VirtualHost) -> float:
    spec, directory = impossible(host.accelerator.option), "/tmp/refused-by-hand"
    words = [
        "env", *(f"{name}={value}" for name, value in host.qemu.env.items()),
        *host.qemu.argv_prefix, *command_line(spec, Sockets(directory)),
    ]  # fmt: skip
    text = f"mkdir {directory}; {shlex.join(words)}; s=$?; rm -r {directory}; exit $s"
    began = time.monotonic()
    done = host.transport.run(text, check=False)
    took = time.monotonic() - began
    if done.exit_status != 1 or "no such host device" not in done.stderr:
        raise MachineError(
            f"QEMU by hand ended with {done.exit_status}", seen=done.stderr or done.stdout
        )
    return took
