"""Counting what happens while accesses of one kind are made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from harness.machine.machine import Machine
from harness.model.trap import TrapClass, measured_class
from harness.parse.query_stats import counted_since
from harness.parse.trace_log import TraceEvent

READ_EVENTS = (
    "memory_region_ops_read",
    "memory_region_ram_device_read",
    "vfio_region_read",
    "vfio_rom_read",
    "vfio_quirk_*",
)
"""Trace events that tell which path served a read (TRP-07)."""
WRITE_EVENTS = (
    "memory_region_ops_write",
    "memory_region_ram_device_write",
    "vfio_region_write",
    "vfio_quirk_*",
)
"""The same for a write; nobody writes to a ROM."""


@dataclass(frozen=True, slots=True)
class Accesses:
    """What was counted while *count* equal accesses were made."""

    where: str
    count: int
    events: dict[str, int]
    """Trace events by name; ``memory_region_ops_*`` with the region's name behind a colon."""
    exits: int | None
    """Growth of ``mmio_exits`` of the machine's vCPUs; None where KVM does not run it."""
    value: str
    counters: Mapping[str, int] = field(default_factory=dict)
    """Growth of every counter of KVM (``query-stats``); empty where KVM does not run it."""
    verb: str = "reads"
    """What they were: reads or writes."""

    @property
    def served_by(self) -> TrapClass:
        """The path that served them, from the counts alone."""
        return measured_class(self.events, self.count, self.exits)

    def explain(self) -> str:
        """Return the counts in one line."""
        events = ", ".join(f"{name} {n}" for name, n in sorted(self.events.items())) or "none"
        return (
            f"{self.count} {self.verb} at {self.where}: trace events {events}; "
            f"mmio exits {'not counted' if self.exits is None else self.exits}; "
            f"served by {self.served_by.value}"
        )


@dataclass(slots=True)
class Counts:
    """What was counted inside `counting`; filled when it is left."""

    events: dict[str, int] = field(default_factory=dict)
    exits: int | None = None
    counters: dict[str, int] = field(default_factory=dict)


@contextlib.contextmanager
def counting(machine: Machine, *events: str) -> Iterator[Counts]:
    """Count *events* (default: `READ_EVENTS`) and MMIO exits of *machine* while inside."""
    counts = Counts()
    before = machine.statistics()
    with machine.tracing(*(events or READ_EVENTS)) as window:
        yield counts
    after = machine.statistics()
    counts.events = count_by_path(window.events)
    counts.counters = counted_since(after, before)
    counts.exits = counts.counters.get("mmio_exits")


def count_by_path(events: Iterable[TraceEvent]) -> dict[str, int]:
    """Count *events* by name, those of an emulated region by the region's name as well."""
    found: dict[str, int] = {}
    for event in events:
        name = event.name
        if name.startswith("memory_region_ops_"):
            name += f":{event.fields.get('name', '')}"
        found[name] = found.get(name, 0) + 1
    return found
