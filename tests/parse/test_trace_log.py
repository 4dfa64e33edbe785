"""Trace lines of QEMU's log backend."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.parse.trace_log import (
    FORMATS,
    parse_trace_line,
    parse_trace_log,
)

SAMPLES: list[tuple[str, str, dict[str, int | str]]] = [
    (
        "memory_region_ops_read",
        "cpu 0 mr 0x55d0a8c0 addr 0xfebf0000 value 0x1 size 4 name 'msix-table'",
        {
            "cpu": 0,
            "mr": 0x55D0A8C0,
            "addr": 0xFEBF0000,
            "value": 1,
            "size": 4,
            "name": "msix-table",
        },
    ),
    (
        "memory_region_ops_write",
        "cpu -1 mr 0x55d0a8c0 addr 0xfebf0000 value 0xff size 1 name '0000:00:03.0 BAR 0'",
        {
            "cpu": -1,
            "mr": 0x55D0A8C0,
            "addr": 0xFEBF0000,
            "value": 0xFF,
            "size": 1,
            "name": "0000:00:03.0 BAR 0",
        },
    ),
    (
        "memory_region_ops_read",
        "cpu 0 mr 0x1 addr 0x2 value 0x3 size 4",
        {"cpu": 0, "mr": 1, "addr": 2, "value": 3, "size": 4},
    ),
    (
        "memory_region_ram_device_read",
        "cpu 1 mr 0x55 addr 0x10 value 0x20 size 8",
        {"cpu": 1, "mr": 0x55, "addr": 0x10, "value": 0x20, "size": 8},
    ),
    (
        "memory_region_ram_device_write",
        "cpu 1 mr 0x55 addr 0x10 value 0x20 size 8",
        {"cpu": 1, "mr": 0x55, "addr": 0x10, "value": 0x20, "size": 8},
    ),
    (
        "memory_region_subpage_read",
        "cpu 1 mr 0x55 offset 0x10 value 0x20 size 8",
        {"cpu": 1, "mr": 0x55, "addr": 0x10, "value": 0x20, "size": 8},
    ),
    (
        "memory_region_subpage_write",
        "cpu 1 mr 0x55 offset 0x10 value 0x20 size 8",
        {"cpu": 1, "mr": 0x55, "addr": 0x10, "value": 0x20, "size": 8},
    ),
    (
        "vfio_region_read",
        " (0000:00:03.0:region0+0x1c, 4) = 0x460001",
        {"name": "0000:00:03.0", "index": 0, "addr": 0x1C, "size": 4, "value": 0x460001},
    ),
    (
        "vfio_region_write",
        " (0000:00:03.0:region2+0x1000, 0x7, 4)",
        {"name": "0000:00:03.0", "index": 2, "addr": 0x1000, "value": 7, "size": 4},
    ),
    (
        "vfio_pci_read_config",
        " (0000:00:03.0, @0x10, len=0x4) 0xfebf0004",
        {"name": "0000:00:03.0", "addr": 0x10, "size": 4, "value": 0xFEBF0004},
    ),
    (
        "vfio_pci_write_config",
        " (0000:00:03.0, @0x4, 0x406, len=0x2)",
        {"name": "0000:00:03.0", "addr": 4, "value": 0x406, "size": 2},
    ),
    (
        "pci_cfg_read",
        "vfio-pci 00:03.0 @0x0 -> 0x10d38086",
        {
            "name": "vfio-pci",
            "bus": 0,
            "device": 3,
            "function": 0,
            "addr": 0,
            "value": 0x10D38086,
        },
    ),
    (
        "pci_cfg_write",
        "empty ff:1f.7 @0x4 <- 0x6",
        {"name": "empty", "bus": 0xFF, "device": 0x1F, "function": 7, "addr": 4, "value": 6},
    ),
    (
        "pci_cfg_read",
        "e1000e 03:0 @0x0 -> 0x8086",
        {"name": "e1000e", "device": 3, "function": 0, "addr": 0, "value": 0x8086},
    ),
    (
        "vfio_msi_interrupt",
        " (0000:00:03.0) vector 1 0xfee01004/0x4022",
        {"name": "0000:00:03.0", "vector": 1, "addr": 0xFEE01004, "value": 0x4022},
    ),
    (
        "vfio_msix_vector_do_use",
        " (0000:00:03.0) vector 3 used",
        {"name": "0000:00:03.0", "vector": 3},
    ),
    (
        "vfio_msix_vector_release",
        " (0000:00:03.0) vector 3 released",
        {"name": "0000:00:03.0", "vector": 3},
    ),
    (
        "vfio_msi_enable",
        " (0000:00:03.0) Enabled 2 MSI vectors",
        {"name": "0000:00:03.0", "vectors": 2},
    ),
    (
        "vtd_dmar_translate",
        "dev 00:03.00 iova 0xfffff000 -> gpa 0x1234000 mask 0xfff",
        {
            "bus": 0,
            "device": 3,
            "function": 0,
            "iova": 0xFFFFF000,
            "gpa": 0x1234000,
            "mask": 0xFFF,
        },
    ),
    (
        "vtd_dmar_fault",
        "sid 0x18 fault 5 addr 0xdead000 write 1",
        {"sid": 0x18, "fault": 5, "addr": 0xDEAD000, "write": 1},
    ),
    (
        "vtd_switch_address_space",
        "Device 00:1f.2 switching address space (iommu enabled=1)",
        {"bus": 0, "device": 0x1F, "function": 2, "enabled": 1},
    ),
    (
        "vtd_page_walk_one",
        "domain 0x2 iova 0x1000 -> gpa 0x2000 mask 0xfff perm 3",
        {"domain": 2, "iova": 0x1000, "gpa": 0x2000, "mask": 0xFFF, "perm": 3},
    ),
]


@pytest.mark.parametrize("prefix", ["", "1234@1767607872.000123:", "2026-01-05T10:11:12.000123Z "])
@pytest.mark.parametrize(("name", "arguments", "fields"), SAMPLES)
def test_known_event_is_read(
    name: str, arguments: str, fields: dict[str, int | str], prefix: str
) -> None:
    event = parse_trace_line(f"{prefix}{name} {arguments}\r\n")

    assert event is not None
    assert (event.name, event.arguments) == (name, arguments.strip())
    assert event.fields == fields
    assert event.thread == (1234 if "@" in prefix else None)
    assert event.time == (1767607872.000123 if prefix else None)


def test_every_known_format_has_a_sample() -> None:
    assert set(FORMATS) == {name for name, _, _ in SAMPLES}


def test_unknown_event_gives_what_looks_like_fields() -> None:
    event = parse_trace_line("vfio_intx_update  (0000:00:03.0) IRQ moved 10 -> 11")
    flag = parse_trace_line("vtd_dmar_enable enable 1")
    bare = parse_trace_line("vtd_inv_qi_fetch ")

    assert event is not None
    assert event.fields == {"name": "0000:00:03.0", "moved": 10}
    assert flag is not None
    assert flag.number("enable") == 1
    assert bare is not None
    assert (bare.arguments, bare.fields) == ("", {})
    with pytest.raises(KeyError):
        event.number("name")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "qemu-system-x86_64: terminating on signal 15",
        "vtd_iova_to_slpte: detected slpte permission error",
        "Invalid read at addr 0x2410, size 4, region 'nvme', reason: rejected",
        "invalid read somewhere",
    ],
)
def test_other_log_lines_are_no_events(line: str) -> None:
    assert parse_trace_line(line) is None


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    list(parse_trace_log(text))


def test_date_and_seconds_are_the_same_time() -> None:
    seconds = parse_trace_line("1234@1767607872.000123:nvme_cc x")
    date = parse_trace_line("2026-01-05T10:11:12.000123Z nvme_cc x")

    assert seconds is not None and date is not None
    assert seconds.time == date.time == 1767607872.000123
    assert (seconds.thread, date.thread) == (1234, None)


def test_a_log_line_of_another_kind_with_a_date_is_no_event() -> None:
    assert parse_trace_line("2026-01-05T10:11:12.000123Z overcommitted at 0x0") is None
