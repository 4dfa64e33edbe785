"""A case survives JSON; a wrong file is refused with the key that is wrong."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.address import AddressRange
from harness.model.expectation import Space
from harness.model.vfio.case import Transport, VfioCase
from harness.model.vfio.case_json import case_from_dict, case_to_dict


@given(st.data())
def test_a_case_survives_json(
    vfio_cases: st.SearchStrategy[VfioCase], data: st.DataObject
) -> None:
    case = replace(
        data.draw(vfio_cases),
        neighbours=(AddressRange(0x1000, 0x100),),
        name=data.draw(st.sampled_from(["", "VFIO_FD3"])),
        device_id=data.draw(st.sampled_from([None, "nvme0"])),
        transport=data.draw(st.sampled_from(Transport)),
        order=(2, 0),
        grown=(4,),
        by_power={1: True, 2: False},
        let_through={Space.MEMORY: (AddressRange(0x1000, 0x1000),), Space.PORTS: ()},
    )

    assert case_from_dict(json.loads(json.dumps(case_to_dict(case)))) == case


MINIMAL: dict[str, Any] = {
    "function": {"bdf": "0000:01:00.0", "id": "1b36:0010", "class": "0x010802"},
    "bar_addresses": {"0": "0xfe000000"},
    "kernel": "6.12.48+deb13-amd64",
    "qemu": "10.0.2 (Debian)",
}


def test_four_keys_are_enough() -> None:
    case = case_from_dict(MINIMAL)

    assert (case.bar_addresses, case.kvm, case.page) == ({0: 0xFE000000}, False, 4096)
    assert str(case.qemu) == "10.0.2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"function": None}, "file.function: missing"),
        ({"bar_addresses": None}, "file.bar_addresses: missing"),
        ({"bar_addresses": {"x": 1}}, "file.bar_addresses: expected a number"),
        ({"bar_addresses": {"0": "here"}}, "file.bar_addresses.0: expected a number"),
        ({"kernel": "linux"}, "not a Linux version"),
        ({"qemu": 10}, "file.qemu: expected text"),
        ({"kvm": "yes"}, "file.kvm: expected true or false"),
        ({"page": 1000}, "no page size"),
        ({"options": {"x-no-mmap": True}}, "options: unknown key 'x-no-mmap'"),
        ({"state": []}, "state: expected an object"),
        (
            {"regions": {"0": {"sparse": [[1]]}}},
            r"regions.0.sparse\[0\]: expected \[start, size\]",
        ),
        ({"neighbours": [[0, 0]]}, "not a range"),
        ({"bars": []}, "unknown key 'bars'"),
    ],
)
def test_a_wrong_file_is_refused_with_its_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        case_from_dict(MINIMAL | change)
