"""Memory maps survive JSON, and damaged documents are refused with the place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import ParseError
from harness.model.address import AddressRange
from harness.model.memory_map import AddressSpace, FlatView, Kind, MemoryMap, Owner, Region
from harness.model.memory_map_json import map_from_dict, map_to_dict
from harness.parse.mtree import parse_memory_map

SAMPLES = Path(__file__).parents[1] / "samples" / "mtree"

FULL = MemoryMap(
    (
        FlatView(
            (AddressSpace("memory", "system"), AddressSpace("I/O", "io", alias="x")),
            None,
            (
                Region(
                    AddressRange(0x1000, 0x2000),
                    Kind.UNKNOWN,
                    "a row",
                    offset=0xB90090,
                    priority=-1,
                    nonvolatile=True,
                    owner=Owner("dev", "id", "nvme0"),
                    parent=Owner("obj", "path", "/machine"),
                    accelerators=("KVM", "KVM"),
                    word="strange",
                ),
                Region(AddressRange(0, 1 << 64), Kind.RAMD, "", orphan=True),
            ),
        ),
    )
)


def test_a_map_with_every_field_set_comes_back_from_json() -> None:
    assert map_from_dict(json.loads(json.dumps(map_to_dict(FULL)))) == FULL


@pytest.mark.parametrize("name", sorted(path.name for path in SAMPLES.glob("local-*-f*.txt")))
def test_a_whole_dump_comes_back_from_json(name: str) -> None:
    memory_map = parse_memory_map((SAMPLES / name).read_text(encoding="utf-8"))

    assert map_from_dict(json.loads(json.dumps(map_to_dict(memory_map)))) == memory_map


def test_addresses_are_text_because_json_numbers_lose_bits() -> None:
    view = map_to_dict(FULL)["views"]

    assert isinstance(view, list)
    assert view[0]["regions"][1]["range"] == "0000000000000000-ffffffffffffffff"
    assert view[0]["regions"][0]["offset"] == "0000000000b90090"


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ([], "not an object"),
        ({}, "'views' must be of type list"),
        ({"views": [3]}, "views[0]: not an object"),
        ({"views": [{"spaces": [], "regions": [{}]}]}, "views[0].regions[0]: 'range' must be"),
        (
            {"views": [{"spaces": [], "regions": [{"range": "1-2", "kind": "ram", "name": ""}]}]},
            "not an address range",
        ),
        (
            {
                "views": [
                    {
                        "spaces": [],
                        "regions": [
                            {
                                "range": "0000000000000000-0000000000000000",
                                "kind": "rsvd",
                                "name": "",
                            }
                        ],
                    }
                ]
            },
            "'rsvd' is not a valid Kind",
        ),
        ({"views": [{"spaces": [{"name": 1}], "regions": []}]}, "spaces[0]: 'name' must be"),
    ],
)
def test_a_damaged_document_is_refused_with_its_place(data: object, place: str) -> None:
    with pytest.raises(ParseError) as caught:
        map_from_dict(data)

    assert place in str(caught.value)
