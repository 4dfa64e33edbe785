"""Benchmark ``cold``: a virtual host from nothing to the first result of a command."""

from __future__ import annotations

import time
from pathlib import Path

from harness.bench import by_hand, virtme
from harness.bench.laboratory import Laboratory
from harness.bench.model import Asked, Benchmark, Measure, Role, Sample, Subject
from harness.lab.hosts import open_virtual

OURS = "cold boot"
BY_HAND = "same QEMU by hand"
FIRST = "first result"


def cold(lab: Laboratory) -> Benchmark:
    """Return the benchmark."""
    return Benchmark(
        name="cold",
        title="cold boot of a virtual host to the first result of a command",
        measures=(Measure(FIRST),),
        subjects=(
            Subject(OURS, Role.OURS, lambda place: _ours(lab, place)),
            Subject(BY_HAND, Role.FLOOR, lambda place: _by_hand(lab, place)),
            *virtme.subjects(lab, FIRST),
        ),
        asked=(
            Asked("at most 1.15 times the same QEMU by hand", FIRST, OURS, 1.15, over=BY_HAND),
            Asked("at most 0.7 times virtme-ng", FIRST, OURS, 0.7, over=virtme.NAME),
        ),
        notes=(
            "by hand: a process, its console read until the guest is ready, paramiko",
            *virtme.notes(lab),
        ),
    )


def cold_boot(lab: Laboratory, place: Path) -> float:
    """Return the seconds that our own cold boot takes to the first result."""
    began = time.monotonic()
    host = open_virtual(lab.parts, key=lab.key, evidence=place, saved=False)
    try:
        host.transport.run("true")
        return time.monotonic() - began
    finally:
        host.close()
        # Evidence is kept, not the disk that was written for this boot.
        (place / "nvme.img").unlink(missing_ok=True)


def _ours(lab: Laboratory, place: Path) -> Sample:
    return {FIRST: cold_boot(lab, place)}


def _by_hand(lab: Laboratory, place: Path) -> Sample:
    port = by_hand.free_port()
    spec = lab.host_spec(ssh_port=port)
    return {FIRST: by_hand.boot_to_first_result(spec, lab.parts.l0_qemu, lab.key, port, place)}
