"""Benchmark ``nested``: from nothing to a verdict about a device in a nested guest."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from harness.bench.laboratory import Laboratory
from harness.bench.model import Asked, Benchmark, Measure, Role, Sample, Subject
from harness.errors import MachineError
from harness.guest.block import BlockDevice
from harness.lab.hosts import DISK_SEED, open_virtual
from harness.lab.nested import Nested, start_nested, take_nested
from harness.step import step

WARM = "warm"
COLD = "cold"
VERDICT = "verdict"
MAPPED = "map judged"
_BLOCK = 64 * 1024


def nested(lab: Laboratory) -> Benchmark:
    """Return the benchmark; its state is there when it returns."""
    lab.state(lab.rung(lab.guest_spec()))
    return Benchmark(
        name="nested",
        title="from nothing to a verdict about the nvme of a nested guest",
        measures=(Measure(VERDICT), Measure(MAPPED)),
        subjects=(
            Subject(WARM, Role.OURS, lambda place: _warm(lab, place)),
            Subject(COLD, Role.PEER, lambda place: _cold(lab, place)),
        ),
        asked=(
            Asked("warm within 3.0 s", VERDICT, WARM, 3.0),
            Asked("at least 8 times faster than cold", VERDICT, COLD, 8, WARM, at_most=False),
        ),
        notes=(
            "verdict: the map of the nvme is what it must be, and the guest has read and verified"
            f" {_BLOCK >> 10} KiB of it by DMA",
            "warm: a host with the guest up in it goes on from its saved state; the devices are"
            " plugged, bound and the nvme hot-added. cold: host and guest boot with them",
        ),
        is_pictured=True,
    )


def judge(guest: Nested) -> None:
    """Judge the nvme of *guest*: its map by the oracle.

    :raise MachineError: it is not as it must be.
    """
    nvme = guest.assigned["nvme"]
    with step("judge the map of %s", nvme.name):
        expected, found = nvme.expectation(), nvme.memory_map()
        if expected.compare(found):
            raise MachineError("the map is not as it must be", seen=expected.explain(found))


def read_back(guest: Nested) -> None:
    """Let *guest* read the disk of its nvme by DMA and compare.

    :raise MachineError: it reads something else than lies there.
    """
    nvme = guest.assigned["nvme"]
    with step("read %s in the guest", nvme.name):
        disk = BlockDevice(nvme.os, "/dev/nvme0n1")
        if not disk.holds(DISK_SEED, offset=_BLOCK, length=_BLOCK):
            raise MachineError("the guest reads other data than lie on the disk")


def _warm(lab: Laboratory, place: Path) -> Sample:
    return _verdict(lab, place, saved=True)


def _cold(lab: Laboratory, place: Path) -> Sample:
    return _verdict(lab, place, saved=False)


def _verdict(lab: Laboratory, place: Path, *, saved: bool) -> Sample:
    inside = place / "guest"
    inside.mkdir()
    spec = lab.guest_spec() if saved else None
    with ExitStack() as last_first:
        began = time.monotonic()
        with step("have a host"):
            host = open_virtual(lab.parts, key=lab.key, evidence=place, nested=spec, saved=saved)
        last_first.callback((place / "nvme.img").unlink, missing_ok=True)
        last_first.callback(host.close)
        if saved and host.left is None:
            raise MachineError("the host could not go on from its saved state", evidence=place)
        with step("have a guest with the nvme"):
            guest = (
                take_nested(host, ["nvme"], evidence=inside)
                if saved
                else start_nested(host, ["nvme"], evidence=inside)
            )
        last_first.callback(guest.close)
        judge(guest)
        mapped = time.monotonic() - began
        read_back(guest)
        return {VERDICT: time.monotonic() - began, MAPPED: mapped}
