"""The judge by file: a map, a device and a file are enough."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import ConfigError, ParseError
from harness.model.address import AddressRange
from harness.model.memory_map import AddressSpace, FlatView, Kind, MemoryMap, Owner, Region
from harness.parse.mtree import parse_mtree
from harness.report.expect_view import judge_file

SAMPLES = Path(__file__).parents[1] / "samples" / "mtree"

CASE: dict[str, Any] = {
    "function": {
        "bdf": "0000:01:00.0",
        "id": "1b36:0010",
        "class": "0x010802",
        "bars": [{"index": 0, "kind": "mem64", "size": "0x4000"}],
        "msix": {
            "vectors": 65,
            "table_bar": 0,
            "table_offset": "0x2000",
            "pba_bar": 0,
            "pba_offset": "0x3000",
        },
    },
    "bar_addresses": {"0": "0xfe000000"},
    "kernel": "6.12.48+deb13-amd64",
    "qemu": "10.0.2 (Debian 1:10.0.2+ds-2+deb13u1)",
    "kvm": True,
}


def row(start: int, last: int, kind: Kind, name: str, offset: int = 0, mark: str = "") -> Region:
    return Region(
        AddressRange.of(start, last + 1),
        kind,
        name,
        offset,
        owner=Owner("dev", "id", "nvme0"),
        accelerators=(mark,) if mark else (),
    )


BAR = "0000:01:00.0 BAR 0 mmaps[0]"
ROWS = (
    row(0xFE000000, 0xFE001FFF, Kind.RAMD, BAR, mark="KVM"),
    row(0xFE002000, 0xFE00240F, Kind.IO, "msix-table"),
    row(0xFE002410, 0xFE003FFF, Kind.RAMD, BAR, 0x2410),
)


def map_of(*rows: Region) -> MemoryMap:
    return MemoryMap((FlatView((AddressSpace("memory"),), "system", rows),))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "function.json"
    path.write_text(json.dumps(CASE), encoding="utf-8")
    return path


@pytest.mark.parametrize("device", ["0000:01:00.0", "01:00.0", "nvme0", ""])
def test_the_right_map_is_accepted_by_any_name_of_the_device(path: Path, device: str) -> None:
    assert judge_file(map_of(*ROWS), device, path, 4096) == ""


def test_a_wrong_map_is_explained(path: Path) -> None:
    text = judge_file(map_of(ROWS[0], ROWS[2]), "0000:01:00.0", path, 4096)

    assert text.startswith('[MAP-02] BAR 0 at fe000000-fe003fff of "memory", from +0x2000: ')


def test_the_page_size_can_be_another(path: Path) -> None:
    assert "[MAP-15]" in judge_file(map_of(*ROWS), "nvme0", path, 0x10000)


def test_a_wrong_owner_is_found(path: Path) -> None:
    assert "[MT-26]" in judge_file(map_of(*ROWS), "nvme1", path)


def test_a_file_of_another_function_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match="does not describe") as raised:
        judge_file(map_of(*ROWS), "0000:02:00.0", path)

    assert raised.value.evidence == path


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        judge_file(map_of(*ROWS), "", tmp_path / "none.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "Expecting value"),
        ("[]", "file: expected an object, found list"),
        ("{}", "file.function: missing"),
        (json.dumps(CASE | {"bar_addresses": {"1": 0}}), "an address for BAR 1"),
        (json.dumps(CASE | {"qemu": "2.8"}), "2.9 is the first"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_by_its_name(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "function.json"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ParseError, match=message) as raised:
        judge_file(map_of(*ROWS), "0000:01:00.0", path)

    assert raised.value.where == str(path)


def test_a_map_without_guest_memory_is_refused(path: Path) -> None:
    with pytest.raises(ParseError, match="no view of guest memory"):
        judge_file(MemoryMap(()), "0000:01:00.0", path)


XL710 = {
    "function": {
        "bdf": "0000:03:00.3",
        "id": "8086:1572",
        "class": "0x020000",
        "bars": [
            {"index": 0, "kind": "mem64", "size": "0x800000"},
            {"index": 3, "kind": "mem64", "size": "0x8000"},
        ],
        "msix": {
            "vectors": 129,
            "table_bar": 3,
            "table_offset": 0,
            "pba_bar": 3,
            "pba_offset": "0x1000",
        },
    },
    "bar_addresses": {"0": "0xfe000000", "3": "0xfe800000"},
    "kernel": "4.14",
    "qemu": "2.11.1",
    "kvm": True,
}


def published(tmp_path: Path, **more: str) -> str:
    """Judge the published map of an XL710, a fragment without names of address spaces."""
    path = tmp_path / "xl710.json"
    path.write_text(json.dumps(XL710 | more), encoding="utf-8")
    text = (SAMPLES / "seed-zhang-xl710-bar3-mtree-f.txt").read_text(encoding="utf-8")
    memory_map = parse_mtree(text).map
    assert memory_map is not None
    return judge_file(memory_map, "0000:03:00.3", path)


def test_the_published_map_of_an_xl710_is_as_it_must_be(tmp_path: Path) -> None:
    assert published(tmp_path) == ""


def test_the_published_map_of_an_xl710_would_be_wrong_today(tmp_path: Path) -> None:
    text = published(tmp_path, kernel="6.12", qemu="4.0")

    assert text.startswith('[MAP-04] BAR 3 at fe800000-fe807fff of "memory", from +0x810: ')
