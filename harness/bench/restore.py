"""Benchmark ``restore``: a virtual host from a saved state to the first result of a command."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from harness.bench import by_hand, virtme
from harness.bench.cold import FIRST, cold_boot
from harness.bench.laboratory import Laboratory
from harness.bench.model import Asked, Benchmark, Measure, Role, Sample, Subject
from harness.errors import MachineError
from harness.host.virtual import VirtualHost
from harness.lab.hosts import methods, restored
from harness.lab.states import Rung
from harness.machine.saved_state import SavedState
from harness.step import recorded

OURS = "restored"
BY_HAND = "same QEMU by hand"
COLD = "cold boot"
RUNNING = "running"


def restore(lab: Laboratory) -> Benchmark:
    """Return the benchmark; its state is there when it returns."""
    rung = lab.rung()
    state = lab.state(rung)
    return Benchmark(
        name="restore",
        title="saved virtual host to the first result of a command, no device plugged yet",
        measures=(Measure(RUNNING), Measure(FIRST)),
        subjects=(
            Subject(OURS, Role.OURS, lambda place: _ours(lab, rung, place)),
            Subject(BY_HAND, Role.FLOOR, lambda place: _by_hand(lab, state, place)),
            Subject(COLD, Role.PEER, lambda place: {FIRST: cold_boot(lab, place)}),
            *virtme.subjects(lab, FIRST),
        ),
        asked=(
            Asked("running within 0.1 s", RUNNING, OURS, 0.1),
            Asked("first result within 0.45 s", FIRST, OURS, 0.45),
            Asked("at least 18 times faster than cold", FIRST, COLD, 18, OURS, at_most=False),
            Asked(
                "at least 25 times faster than virtme-ng", FIRST, virtme.NAME, 25, OURS,
                at_most=False,
            ),
        ),
        notes=(
            f"memory kept as {state.method.value}; from the start of our function, or of QEMU by"
            " hand",
            *virtme.notes(lab),
        ),
        is_pictured=True,
    )  # fmt: skip


def restored_host(lab: Laboratory, rung: Rung, place: Path) -> VirtualHost:
    """Return a host that went on from the saved state of *rung*.

    :raise MachineError: it had to boot, which is not what is measured.
    """
    host = restored(lab.parts, rung, methods(lab.ways), key=lab.key, evidence=place)
    if host is None:
        raise MachineError("the host could not go on from its saved state", evidence=place)
    return host


def _ours(lab: Laboratory, rung: Rung, place: Path) -> Sample:
    with ExitStack() as stack:
        steps = stack.enter_context(recorded())
        began, clock = time.time(), time.monotonic()
        host = restored_host(lab, rung, place)
        stack.callback(host.close)
        host.transport.run("true")
        first = time.monotonic() - clock
    ends = [one.ended for one in steps if one.text.startswith("restore ") and one.ended]
    return {RUNNING: ends[0] - began, FIRST: first} if ends else {FIRST: first}


def _by_hand(lab: Laboratory, state: SavedState, place: Path) -> Sample:
    port = by_hand.free_port()
    spec = lab.rung(ssh_port=port).host
    running, first = by_hand.restore_to_first_result(
        spec, state, lab.parts.l0_qemu, lab.key, port, place
    )
    return {RUNNING: running, FIRST: first}
