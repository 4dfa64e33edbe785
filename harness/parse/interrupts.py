"""``/proc/interrupts`` (Linux ``kernel/irq/proc.c:show_interrupts()``)."""

from __future__ import annotations

import re

from harness.errors import ParseError
from harness.model.interrupts import Interrupt, InterruptTable

_CPU = re.compile(r"CPU(\d+)")
_ROW = re.compile(r"\s*([A-Za-z0-9_]+):((?:\s+\d+)*)(?:\s+(.*))?$")
# x86 prints "2-edge", others "27 Level" and then perhaps "-name".
_DETAIL = re.compile(
    r"(?P<chip>\S+)"
    r"(?:\s+(?P<hardware>\d+)(?=[-\s]|$))?"
    r"(?:\s+(?P<level>Edge|Level)(?=[-\s]|$))?"
    r"(?:\s*-(?P<flow>\S+))?"
    r"(?:\s+(?P<names>.*))?$"
)


def parse_interrupts(text: str, *, where: str = "/proc/interrupts") -> InterruptTable:
    """Read ``/proc/interrupts``.

    :raise ParseError: no header of CPUs, or a line that is no row.
    """
    lines = text.splitlines()
    head = lines[0] if lines else ""
    cpus = tuple(int(number) for number in _CPU.findall(head))
    if not cpus:
        raise ParseError("no header of CPUs", text=head, where=f"{where} line 1")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if line.strip():
            rows.append(_row(line, len(cpus), f"{where} line {number}"))
    return InterruptTable(cpus, tuple(rows))


def _row(line: str, cpus: int, where: str) -> Interrupt:
    match = _ROW.match(line)
    if match is None:
        raise ParseError("not a row of counts", text=line, where=where)
    label, numbers, rest = match[1], match[2].split(), (match[3] or "").strip()
    if len(numbers) > cpus:
        # A description may begin with a number; a count belongs to a CPU.
        rest = " ".join([*numbers[cpus:], rest])
        numbers = numbers[:cpus]
    counts = tuple(int(count) for count in numbers)
    if not label.isdecimal():
        return Interrupt(label, counts, names=(rest,) if rest else ())
    if len(counts) != cpus:
        raise ParseError(f"{len(counts)} counts for {cpus} CPUs", text=line, where=where)
    detail = _DETAIL.match(rest)
    if detail is None:
        return Interrupt(label, counts)
    names = detail["names"] or ""
    return Interrupt(
        label,
        counts,
        chip=detail["chip"],
        hardware=int(detail["hardware"]) if detail["hardware"] else None,
        trigger=detail["flow"] or detail["level"] or "",
        names=tuple(name.strip() for name in names.split(", ") if name.strip()),
    )
