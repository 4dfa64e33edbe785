"""A function survives JSON; a wrong file is refused with the key that is wrong."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.pci import (
    Bar,
    BarKind,
    Bdf,
    Capability,
    MsiCapability,
    MsixCapability,
    PciFunction,
    PciId,
)
from harness.model.pci_json import function_from_dict, function_to_dict

numbers = st.integers(0, 2**31)
bars = st.builds(
    Bar,
    index=st.integers(0, 5),
    kind=st.sampled_from(BarKind),
    size=st.integers(4, 40).map(lambda n: 1 << n),
    prefetchable=st.booleans(),
    address=st.none() | st.integers(0, 2**52),
)
functions = st.builds(
    PciFunction,
    bdf=st.builds(
        Bdf, st.integers(0, 65535), st.integers(0, 255), st.integers(0, 31), st.integers(0, 7)
    ),
    id=st.builds(PciId, st.integers(0, 65535), st.integers(0, 65535)),
    class_code=st.integers(0, 0xFFFFFF),
    bars=st.lists(bars, max_size=6).map(tuple),
    msix=st.none()
    | st.builds(
        MsixCapability,
        offset=numbers,
        vectors=st.integers(1, 2048),
        table_bar=numbers,
        table_offset=numbers,
        pba_bar=numbers,
        pba_offset=numbers,
        enabled=st.booleans(),
    ),
    capabilities=st.lists(st.builds(Capability, numbers, numbers, st.booleans()), max_size=4).map(
        tuple
    ),
    rom_size=numbers,
    interrupt_pin=st.integers(0, 4),
    driver=st.none() | st.text(min_size=1),
    iommu_group=st.none() | numbers,
    revision=st.integers(0, 255),
    config=st.binary(max_size=64),
    msi=st.none()
    | st.builds(MsiCapability, numbers, numbers, st.booleans(), st.booleans(), st.booleans()),
    vf_bars=st.lists(bars, max_size=2).map(tuple),
)


@given(functions)
def test_a_function_survives_json(function: PciFunction) -> None:
    text = json.dumps(function_to_dict(function))

    assert function_from_dict(json.loads(text)) == function


MINIMAL: dict[str, Any] = {"bdf": "0000:01:00.0", "id": "1b36:0010", "class": "0x010802"}


def test_three_keys_are_enough() -> None:
    function = function_from_dict(MINIMAL)

    assert function == PciFunction(Bdf.parse("01:00.0"), PciId(0x1B36, 0x10), 0x010802)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bdf": None}, "function.bdf: missing"),
        ({"bdf": "1:2:3"}, "not a PCI address"),
        ({"id": 7}, "function.id: expected text"),
        ({"class": "net"}, "function.class: expected a number"),
        ({"class": True}, "function.class: expected a number"),
        ({"rom_size": -1}, "function.rom_size: expected a number"),
        ({"bars": {}}, "function.bars: expected a list"),
        ({"bars": [3]}, r"bars\[0\]: expected an object"),
        ({"bars": [{"index": 6, "kind": "io", "size": 4}]}, r"bars\[0\]: not a BAR"),
        ({"bars": [{"index": 0, "kind": "io", "size": 5}]}, r"bars\[0\]: not a BAR"),
        ({"bars": [{"index": 0, "kind": "mem", "size": 4}]}, r"bars\[0\].kind: 'mem'"),
        ({"msix": {"vectors": 0}}, "msix.vectors: 0"),
        ({"msix": {"vectors": 1}}, "msix.table_bar: missing"),
        ({"config": "xy"}, "function.config: not bytes"),
        ({"bar": []}, "unknown key 'bar'"),
    ],
)
def test_a_wrong_file_is_refused_with_its_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function_from_dict(MINIMAL | change)


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an object, found list"):
        function_from_dict([])
