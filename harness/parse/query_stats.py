"""Replies of QMP ``query-stats`` and ``query-pci``, as decoded from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from harness.errors import ParseError
from harness.model.pci import Bdf, PciId
from harness.model.pci_listing import QueryPciBar, QueryPciBridge, QueryPciFunction

__all__ = [
    "QueryPciBar",
    "QueryPciBridge",
    "QueryPciFunction",
    "counted_since",
    "parse_query_pci",
    "parse_query_stats",
]

_UNMAPPED = (1 << 64) - 1
_T = TypeVar("_T")


def parse_query_stats(reply: object, *, provider: str = "kvm") -> dict[str, int]:
    """Return the counters of *provider*, summed over the objects (vCPUs) in *reply*.

    Histograms (lists) and booleans are left out (``qapi/stats.json``, ``StatsValue``).

    :raise ParseError: the reply does not follow the schema.
    """
    where = "query-stats"
    totals: dict[str, int] = {}
    for result in _items(reply, where):
        if _need(result, "provider", str, where) != provider:
            continue
        for stat in _items(_need(result, "stats", list, where), where):
            name = _need(stat, "name", str, where)
            value = stat.get("value")
            if isinstance(value, int) and not isinstance(value, bool):
                totals[name] = totals.get(name, 0) + value
    return totals


def counted_since(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    """Return how much each counter of *now* grew; one that is new counts from zero."""
    return {name: value - before.get(name, 0) for name, value in now.items()}


def parse_query_pci(reply: object) -> tuple[QueryPciFunction, ...]:
    """Return all functions, those behind bridges right after their bridge.

    :raise ParseError: the reply does not follow the schema.
    """
    found: list[QueryPciFunction] = []
    for bus in _items(reply, "query-pci"):
        found += _functions(_need(bus, "devices", list, "query-pci"))
    return tuple(found)


def _functions(devices: object) -> list[QueryPciFunction]:
    where = "query-pci"
    found: list[QueryPciFunction] = []
    for device in _items(devices, where):
        place = f"{where} {device.get('bus')}:{device.get('slot')}.{device.get('function')}"
        found.append(_function(device, place))
        bridge = device.get("pci_bridge")
        if isinstance(bridge, dict) and "devices" in bridge:
            found += _functions(bridge["devices"])
    return found


def _function(device: dict[str, object], where: str) -> QueryPciFunction:
    ids = _need(device, "id", dict, where)
    sort = _need(device, "class_info", dict, where)
    words = sort.get("desc")
    irq = device.get("irq")
    pin = device.get("irq_pin")
    subsystem = None
    if "subsystem" in ids and "subsystem-vendor" in ids:
        subsystem = PciId(
            _need(ids, "subsystem-vendor", int, where), _need(ids, "subsystem", int, where)
        )
    return QueryPciFunction(
        bdf=Bdf(
            0,
            _need(device, "bus", int, where),
            _need(device, "slot", int, where),
            _need(device, "function", int, where),
        ),
        id=PciId(_need(ids, "vendor", int, where), _need(ids, "device", int, where)),
        qdev_id=_need(device, "qdev_id", str, where),
        class_code=_need(sort, "class", int, where),
        class_words=words if isinstance(words, str) else "",
        subsystem=subsystem,
        irq=irq if isinstance(irq, int) else None,
        pin=pin if isinstance(pin, int) else 0,
        bars=tuple(
            _bar(region, where) for region in _items(_need(device, "regions", list, where), where)
        ),
        bridge=_bridge(device, where),
    )


def _bar(region: dict[str, object], where: str) -> QueryPciBar:
    # PCI_BAR_UNMAPPED is -1 as a signed and 2^64-1 as an unsigned number.
    address = _need(region, "address", int, where) & _UNMAPPED
    return QueryPciBar(
        index=_need(region, "bar", int, where),
        is_memory=_need(region, "type", str, where) == "memory",
        address=None if address == _UNMAPPED else address,
        size=_need(region, "size", int, where),
        is_64=region.get("mem_type_64") is True,
        prefetchable=region.get("prefetch") is True,
    )


def _bridge(device: dict[str, object], where: str) -> QueryPciBridge | None:
    if "pci_bridge" not in device:
        return None
    bus = _need(_need(device, "pci_bridge", dict, where), "bus", dict, where)
    return QueryPciBridge(
        _need(bus, "number", int, where),
        _need(bus, "secondary", int, where),
        _need(bus, "subordinate", int, where),
    )


def _items(value: object, where: str) -> list[dict[str, object]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ParseError("not a list of objects", text=repr(value)[:500], where=where)
    return value


def _need(holder: Mapping[str, object], key: str, kind: type[_T], where: str) -> _T:
    value = holder.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ParseError(
            f"{key!r} is missing or not of type {kind.__name__}",
            text=repr(dict(holder))[:500],
            where=where,
        )
    return value
