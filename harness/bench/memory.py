"""Benchmark ``memory``: what idle hosts have for themselves, and what states take on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from harness.bench.laboratory import Laboratory
from harness.bench.model import Asked, Benchmark, Measure, Role, Sample, Subject
from harness.bench.restore import restored_host
from harness.errors import MachineError
from harness.host.virtual import VirtualHost
from harness.lab.hosts import open_virtual
from harness.lab.states import Rung
from harness.machine.saved_state import SavedState

HOSTS = 3
OURS = "restored"
COLD = "cold boot"
PRIVATE = "private memory"
STATE = "state on disk"
_IDLE = 5
"""Seconds that the hosts have nothing to do before they are looked at."""


def memory(lab: Laboratory) -> Benchmark:
    """Return the benchmark."""
    rung = lab.rung()
    states = (lab.state(rung), lab.state(lab.rung(lab.guest_spec())))
    return Benchmark(
        name="memory",
        title="memory that an idle virtual host shares with nobody, and states on disk",
        measures=(
            Measure(PRIVATE, "B"),
            Measure(STATE, "B"),
            Measure(f"{STATE}, with guest", "B"),
        ),
        subjects=(
            Subject(OURS, Role.OURS, lambda place: _restored(lab, rung, states, place)),
            Subject(COLD, Role.PEER, lambda place: _booted(lab, place), rounds=1),
        ),
        asked=(Asked("at most 150 MB private", PRIVATE, OURS, 150e6),),
        notes=(
            f"Private_Dirty of QEMU (proc smaps_rollup): mean of {HOSTS} restored hosts that run"
            f" at once, {_IDLE} s idle; of one that booted",
            "on disk: allocated blocks of all files of a state",
        ),
    )


def _restored(lab: Laboratory, rung: Rung, states: Sequence[SavedState], place: Path) -> Sample:
    with ExitStack() as stack:
        hosts = []
        for number in range(HOSTS):
            at = place / str(number)
            at.mkdir()
            hosts.append(restored_host(lab, rung, at))
            stack.callback(hosts[-1].close)
        mean = sum(_idle_private(host) for host in hosts) / len(hosts)
    own, with_guest = (float(allocated(state.directory)) for state in states)
    return {PRIVATE: mean, STATE: own, f"{STATE}, with guest": with_guest}


def _booted(lab: Laboratory, place: Path) -> Sample:
    host = open_virtual(lab.parts, key=lab.key, evidence=place, saved=False)
    try:
        return {PRIVATE: float(_idle_private(host))}
    finally:
        host.close()
        (place / "nvme.img").unlink(missing_ok=True)


def _idle_private(host: VirtualHost) -> int:
    host.transport.run(["sleep", str(_IDLE)])
    pids = processes_with(host.machine.sockets.directory)
    if len(pids) != 1:
        raise MachineError(f"{len(pids)} processes have the sockets of one host")
    return private_dirty(Path(f"/proc/{pids[0]}/smaps_rollup").read_text(encoding="ascii"))


def processes_with(word: str, proc: Path = Path("/proc")) -> list[int]:
    """Return the processes that have *word* in their command line."""
    found = []
    for entry in proc.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:  # it ended meanwhile
                continue
            if os.fsencode(word) in line:
                found.append(int(entry.name))
    return found


def private_dirty(smaps_rollup: str) -> int:
    """Return the bytes of ``Private_Dirty`` (Documentation/filesystems/proc.rst). Pure.

    :raise MachineError: there is no such line.
    """
    for line in smaps_rollup.splitlines():
        name, _, value = line.partition(":")
        if name == "Private_Dirty":
            return int(value.split()[0]) << 10
    raise MachineError("smaps_rollup has no Private_Dirty", seen=smaps_rollup)


def allocated(directory: Path) -> int:
    """Return the bytes that the files below *directory* take on disk; holes take none."""
    files = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_blocks * 512 for path in files)
