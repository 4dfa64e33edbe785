"""Lines of QEMU's ``log`` trace backend, whole or as they come in.

A line is the event's name, a blank and the formatted arguments; with ``-msg timestamp=on``
``thread@seconds.micros:`` stands in front (``scripts/tracetool/backend/log.py``), or since 11.0
the date that every line of the log gets and no thread (``2026-01-05T10:11:12.000123Z name …``).
Many formats of hw/vfio begin with a blank of their own, so two blanks follow the name.

What to know of the addresses:

- ``memory_region_ops_*``: absolute in the root container (``memory_region_to_absolute_addr()``);
- ``memory_region_ram_device_*``: offset inside the mapped fragment, and no name: only the
  pointer ``mr`` tells fragments apart;
- ``memory_region_subpage_*``: ``offset`` in the page, no name; the access behind it is traced too;
- ``vfio_region_*``: offset in the device's region ``index`` (BAR 0 to 5, 6 ROM, 7 config, 8 VGA).

``cpu -1`` is an access that no vCPU made (monitor ``xp``, DMA, a migration).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

_LINE = re.compile(
    r"(?:(?P<thread>\d+)@(?P<time>\d+\.\d{1,6}):"
    r"|(?P<date>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[-+]\d\d:?\d\d)) )?"
    r"(?P<name>[a-z][a-z0-9]*(?:_[A-Za-z0-9_]*)?)"
    r"(?:\s+(?P<arguments>.*)|)$"
)

_HEX = r"0x[0-9a-f]+"
_MEMORY = (
    rf"cpu (?P<cpu>-?\d+) mr (?P<mr>{_HEX}) (?:addr|offset) (?P<addr>{_HEX})"
    rf" value (?P<value>{_HEX}) size (?P<size>\d+)(?: name '(?P<name>.*)')?"
)
_BDF = r"(?P<bus>[0-9a-f]{2}):(?P<device>[0-9a-f]{2})\.(?P<function>[0-9a-f]{1,2})"
_CONFIG = (
    # Before 7.0: device and function in decimal, no bus.
    rf"(?P<name>.*) (?:{_BDF}|(?P<old_device>\d+):(?P<old_function>\d+))"
    rf" @(?P<addr>{_HEX}) (?:->|<-) (?P<value>{_HEX})"
)

FORMATS: Mapping[str, re.Pattern[str]] = {
    # system/trace-events; no name before 6.2, later versions may add fields behind it
    "memory_region_ops_read": re.compile(_MEMORY),
    "memory_region_ops_write": re.compile(_MEMORY),
    "memory_region_ram_device_read": re.compile(_MEMORY),
    "memory_region_ram_device_write": re.compile(_MEMORY),
    "memory_region_subpage_read": re.compile(_MEMORY),
    "memory_region_subpage_write": re.compile(_MEMORY),
    # hw/vfio/trace-events
    "vfio_region_read": re.compile(
        rf"\((?P<name>.*):region(?P<index>\d+)\+(?P<addr>{_HEX}), (?P<size>\d+)\)"
        rf" = (?P<value>{_HEX})"
    ),
    "vfio_region_write": re.compile(
        rf"\((?P<name>.*):region(?P<index>\d+)\+(?P<addr>{_HEX}), (?P<value>{_HEX}),"
        r" (?P<size>\d+)\)"
    ),
    "vfio_pci_read_config": re.compile(
        rf"\((?P<name>.*), @(?P<addr>{_HEX}), len=(?P<size>{_HEX})\) (?P<value>{_HEX})"
    ),
    "vfio_pci_write_config": re.compile(
        rf"\((?P<name>.*), @(?P<addr>{_HEX}), (?P<value>{_HEX}), len=(?P<size>{_HEX})\)"
    ),
    "vfio_msi_interrupt": re.compile(
        rf"\((?P<name>.*)\) vector (?P<vector>\d+) (?P<addr>{_HEX})/(?P<value>{_HEX})"
    ),
    "vfio_msix_vector_do_use": re.compile(r"\((?P<name>.*)\) vector (?P<vector>\d+) used"),
    "vfio_msix_vector_release": re.compile(r"\((?P<name>.*)\) vector (?P<vector>\d+) released"),
    "vfio_msi_enable": re.compile(r"\((?P<name>.*)\) Enabled (?P<vectors>\d+) MSI vectors"),
    # hw/pci/trace-events; name is "empty" where no function answers
    "pci_cfg_read": re.compile(_CONFIG),
    "pci_cfg_write": re.compile(_CONFIG),
    # hw/i386/trace-events
    "vtd_dmar_translate": re.compile(
        rf"dev {_BDF} iova (?P<iova>{_HEX}) -> gpa (?P<gpa>{_HEX}) mask (?P<mask>{_HEX})"
    ),
    "vtd_dmar_fault": re.compile(
        rf"sid (?P<sid>{_HEX}) fault (?P<fault>-?\d+) addr (?P<addr>{_HEX}) write (?P<write>\d)"
    ),
    "vtd_switch_address_space": re.compile(
        rf"Device {_BDF} switching address space \(iommu enabled=(?P<enabled>\d)\)"
    ),
    "vtd_page_walk_one": re.compile(
        rf"domain (?P<domain>{_HEX}) iova (?P<iova>{_HEX}) -> gpa (?P<gpa>{_HEX})"
        rf" mask (?P<mask>{_HEX}) perm (?P<perm>-?\d+)"
    ),
}
"""Argument formats of QEMU 10.0, with the older forms named beside them."""

_BARE_HEX = frozenset({"bus", "device", "function"})
_TEXT = frozenset({"name"})
_WORD_VALUE = re.compile(
    rf"(?<![\w:.])([A-Za-z_]\w*)(?:[ =]+|: +|:(?=0x))(?:'([^']*)'|({_HEX}|-?\d+)\b)"
)
_NAMED = re.compile(r"\(([^()]*)\)")


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One traced call."""

    name: str
    arguments: str
    """As formatted by QEMU, without blanks around."""
    fields: Mapping[str, int | str] = field(default_factory=dict, hash=False)
    """By name, numbers as integers. See `FORMATS`; for other events what looks like
    ``word number`` or ``word 'text'``, and ``name`` for a leading ``(name)``."""
    time: float | None = None
    """Seconds since 1970, if the log has times."""
    thread: int | None = None

    def number(self, name: str) -> int:
        """Return field *name* as a number.

        :raise KeyError: the event has no such number.
        """
        value = self.fields.get(name)
        if not isinstance(value, int):
            raise KeyError(f"{self.name} {self.arguments}: no number {name!r}")
        return value


def parse_trace_line(line: str) -> TraceEvent | None:
    """Return the event on *line*, or None for what else is in a log file.

    Without a thread in front only names with an underscore pass for events: a date stands in
    front of other lines too.
    """
    match = _LINE.match(line.strip("\r\n"))
    if match is None or (match["thread"] is None and "_" not in match["name"]):
        return None
    arguments = (match["arguments"] or "").strip()
    name = match["name"]
    return TraceEvent(
        name,
        arguments,
        _fields(name, arguments),
        _time(match),
        int(match["thread"]) if match["thread"] else None,
    )


def _time(match: re.Match[str]) -> float | None:
    if match["date"]:
        try:
            return datetime.fromisoformat(match["date"]).timestamp()
        except ValueError:  # the 31st of February
            return None
    return float(match["time"]) if match["time"] else None


def _fields(name: str, arguments: str) -> dict[str, int | str]:
    known = FORMATS.get(name)
    match = known.match(arguments) if known is not None else None
    if match is not None:
        return {
            key.removeprefix("old_"): _value(key, text)
            for key, text in match.groupdict().items()
            if text is not None
        }
    found: dict[str, int | str] = {}
    if bracket := _NAMED.match(arguments):
        found["name"] = bracket[1]
    for word, text, number in _WORD_VALUE.findall(arguments):
        found.setdefault(word, _value("", number) if number else text)
    return found


def _value(key: str, text: str) -> int | str:
    if key in _TEXT:
        return text
    if key in _BARE_HEX:
        return int(text, 16)
    return int(text, 16) if text.startswith("0x") else int(text)


def parse_trace_log(text: str) -> Iterator[TraceEvent]:
    """Yield the events of a whole log; other lines are passed over.

    A last line without its end is read too.
    """
    for line in text.splitlines():
        event = parse_trace_line(line)
        if event is not None:
            yield event
