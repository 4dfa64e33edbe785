"""The computer that something was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from harness.bench.result import Computer


def load() -> float:
    """Return the mean number of runnable tasks in the last minute."""
    return os.getloadavg()[0]


def describe(*, load_before: float) -> Computer:
    """Return this computer, now."""
    return Computer(
        cores=len(os.sched_getaffinity(0)),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=platform.release(),
        processor=processor(Path("/proc/cpuinfo").read_text(encoding="utf-8")),
        load_before=load_before,
        load_after=load(),
    )


def processor(cpuinfo: str) -> str:
    """Return the first ``model name`` of ``/proc/cpuinfo``. Pure."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "unknown processor"
