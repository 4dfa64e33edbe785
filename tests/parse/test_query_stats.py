"""Replies of query-stats and query-pci."""

from __future__ import annotations

import pytest

from harness.errors import ParseError
from harness.model.pci import PciId
from harness.model.pci_listing import QueryPciBar, QueryPciBridge
from harness.parse.query_stats import counted_since, parse_query_pci, parse_query_stats

STATS = [
    {
        "provider": "kvm",
        "qom-path": "/machine/unattached/device[0]",
        "stats": [
            {"name": "exits", "value": 100},
            {"name": "mmio_exits", "value": 7},
            {"name": "blocking", "value": True},
            {"name": "halt_wait_hist", "value": [0, 1, 2]},
        ],
    },
    {
        "provider": "kvm",
        "qom-path": "/machine/unattached/device[2]",
        "stats": [{"name": "exits", "value": 11}, {"name": "io_exits", "value": 1}],
    },
    {"provider": "cryptodev", "stats": [{"name": "exits", "value": 1000}]},
]


def test_counters_are_summed_over_vcpus() -> None:
    assert parse_query_stats(STATS) == {"exits": 111, "mmio_exits": 7, "io_exits": 1}
    assert parse_query_stats([]) == {}


def test_growth_of_counters() -> None:
    grown = counted_since({"exits": 150, "new": 3}, {"exits": 111, "gone": 1})

    assert grown == {"exits": 39, "new": 3}


@pytest.mark.parametrize(
    "reply",
    [None, {}, ["x"], [{}], [{"provider": "kvm"}], [{"provider": "kvm", "stats": [{}]}]],
)
def test_reply_without_the_schema_is_an_error(reply: object) -> None:
    with pytest.raises(ParseError, match="query-stats"):
        parse_query_stats(reply)


def region(bar: int, address: int, size: int, **more: object) -> dict[str, object]:
    return {"bar": bar, "type": "memory", "address": address, "size": size, **more}


NVME = {
    "bus": 1,
    "slot": 0,
    "function": 0,
    "class_info": {"class": 264},
    "id": {"vendor": 0x1B36, "device": 0x10, "subsystem": 0x1100, "subsystem-vendor": 0x1AF4},
    "irq": 11,
    "irq_pin": 1,
    "qdev_id": "nvme0",
    "regions": [
        region(0, 0xFE800000, 16384, prefetch=False, mem_type_64=True),
        region(2, -1, 4096, prefetch=True, mem_type_64=False),
        region(6, 18446744073709551615, 2048),
        {"bar": 4, "type": "io", "address": 0xC000, "size": 32},
    ],
}
PORT = {
    "bus": 0,
    "slot": 2,
    "function": 0,
    "class_info": {"class": 1540, "desc": "PCI bridge"},
    "id": {"vendor": 0x1B36, "device": 0xC},
    "irq_pin": 1,
    "qdev_id": "rp1",
    "pci_bridge": {
        "bus": {"number": 0, "secondary": 1, "subordinate": 1},
        "devices": [NVME],
    },
    "regions": [],
}
PCI = [{"bus": 0, "devices": [PORT]}]


def test_functions_behind_bridges_follow_their_bridge() -> None:
    port, nvme = parse_query_pci(PCI)

    assert port.bridge == QueryPciBridge(0, 1, 1)
    assert (port.class_words, port.subsystem) == ("PCI bridge", None)
    assert str(nvme.bdf) == "0000:01:00.0"
    assert (nvme.id, nvme.subsystem) == (PciId(0x1B36, 0x10), PciId(0x1AF4, 0x1100))
    assert (nvme.qdev_id, nvme.class_code, nvme.irq, nvme.pin) == ("nvme0", 0x0108, 11, 1)


def test_bar_without_an_address_is_none() -> None:
    nvme = parse_query_pci(PCI)[1]

    assert nvme.bar(0) == QueryPciBar(0, True, 0xFE800000, 16384, is_64=True)
    assert nvme.bar(2) == QueryPciBar(2, True, None, 4096, prefetchable=True)
    assert nvme.bar(6).address is None
    assert nvme.bar(4) == QueryPciBar(4, False, 0xC000, 32)
    assert nvme.bar(0).range.last == 0xFE803FFF
    with pytest.raises(KeyError, match="no BAR 5"):
        nvme.bar(5)


def test_function_without_ids_is_an_error() -> None:
    broken = [{"bus": 0, "devices": [{**NVME, "id": {}}]}]

    with pytest.raises(ParseError, match="vendor"):
        parse_query_pci(broken)
