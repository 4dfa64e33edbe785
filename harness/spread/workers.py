"""How many workers ``-n auto`` means: as many hosts as cores and memory carry."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MEMORY_OF_A_WORKER = 3 << 30
"""Bytes: the virtual host, its nested guest in it, and the processes around them."""
MOST = 4
"""More would each make the shared guests once more to save little; ``-n N`` still can."""

_ROOT = Path("/")
_UNLIMITED = 1 << 60


@dataclass(frozen=True, slots=True)
class Workers:
    """A number of workers, 0 for none, and where it comes from."""

    count: int
    why: str


def automatic(host: str, *, root: Path = _ROOT) -> Workers:
    """Return how many workers fit: one a core, `MEMORY_OF_A_WORKER` each, `MOST` at most.

    None where only one fits: it would bring nothing. None for a host that is there already:
    it has its devices once.

    :param host: as in the settings (``virtual``, ``local``, ``ssh://…``).
    :param root: where ``proc`` and ``sys`` are.
    """
    if host != "virtual":
        return Workers(0, f"{host} has its devices once")
    cores = len(os.sched_getaffinity(0))
    free = free_memory(root)
    fitting = min(cores, free // MEMORY_OF_A_WORKER, MOST)
    why = f"{cores} cores, {free / (1 << 30):.1f} GiB free, {MEMORY_OF_A_WORKER >> 30} GiB each"
    return Workers(fitting if fitting > 1 else 0, f"{why}, at most {MOST}")


def free_memory(root: Path = _ROOT) -> int:
    """Return bytes that can be used without swapping, within the limits of our cgroups.

    ``MemAvailable`` of /proc/meminfo: free pages alone leave out what caches give back at once.
    """
    found = dict(
        line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines() if line
    )
    return max(0, min(int(found["MemAvailable"].split()[0]) << 10, _left_in_cgroups(root)))


def _left_in_cgroups(root: Path) -> int:
    """Return what the memory cgroups of this process leave, of every level the least.

    Version 2 (``memory.max``) and 1 (``memory.limit_in_bytes``); see cgroups(7).
    """
    left = _UNLIMITED
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return left
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, limit, used = "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top = "sys/fs/cgroup/memory"
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        # In a container the path may be the host's; then only the top is there.
        below = Path(path.strip("/"))
        for level in (below, *below.parents):
            left = min(left, _left_in(root / top / level, limit, used))
    return left


def _left_in(group: Path, limit: str, used: str) -> int:
    try:
        most = (group / limit).read_text().strip()
        if most == "max" or int(most) >= _UNLIMITED:
            return _UNLIMITED
        lines = (group / "memory.stat").read_text().splitlines()
        stat = dict(line.split(maxsplit=1) for line in lines if " " in line)
        cached = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
        return int(most) - int((group / used).read_text()) + cached
    except (OSError, ValueError):
        return _UNLIMITED
