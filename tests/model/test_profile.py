"""A device against its profile: what agrees holds, what does not is reported by its item."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping
from dataclasses import replace

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
from harness.model.profile import (
    EXTENDED,
    FUNCTION_FIELDS,
    Answer,
    BarShape,
    Defect,
    DeviceProfile,
    EnableRule,
    FunctionProfile,
    SeenDevice,
    SeenFunction,
    SriovProfile,
    StandIn,
    check,
    items,
    size_text,
)

EXPRESS, AER, SRIOV = 0x80, 0x100, 0x160
MASK = 0x00504000


def function(bdf: str, *, virtual: bool = False) -> PciFunction:
    config = bytearray(4096)
    struct.pack_into("<I", config, EXPRESS + 4, 1 << 28)
    struct.pack_into("<I", config, AER + 8, MASK)
    capabilities = [Capability(0x10, EXPRESS), Capability(0x01, AER, extended=True)]
    if not virtual:
        struct.pack_into("<H", config, SRIOV + 0x0E, 8)
        struct.pack_into("<HH", config, SRIOV + 0x14, 0x80, 2)
        struct.pack_into("<H", config, SRIOV + 0x1A, 0x10CA)
        capabilities.append(Capability(0x10, SRIOV, extended=True))
    return PciFunction(
        bdf=Bdf.parse(bdf),
        id=PciId(0x8086, 0x10CA if virtual else 0x10C9),
        class_code=0x020000,
        bars=(Bar(0, BarKind.MEM32, 0x20000), Bar(3, BarKind.MEM64, 0x4000, prefetchable=True)),
        msix=MsixCapability(0x70, 10, 3, 0, 3, 0x2000),
        msi=MsiCapability(0x50, 1),
        capabilities=tuple(capabilities),
        rom_size=0,
        interrupt_pin=0 if virtual else 1,
        config=bytes(config),
    )


SEEN = SeenDevice(
    SeenFunction(function("03:00.0"), ("flr", "bus")),
    tuple(
        SeenFunction(function(bdf, virtual=True), ("flr", "bus")) for bdf in ("03:10.0", "03:10.2")
    ),
    driver_total=7,
)
BARS = {0: BarShape(0x20000, BarKind.MEM32), 3: BarShape(0x4000, BarKind.MEM64, True)}
PHYSICAL = FunctionProfile(
    id=PciId(0x8086, 0x10C9), class_code=0x020000, bars=BARS, rom=0, interrupt_pin=1, msi=1,
    msix=10, flr=True, reset=("flr", "bus"), aer_masked=MASK,
    capabilities={"aer": AER, "sriov": SRIOV},
)  # fmt: skip
PROFILE = DeviceProfile(
    name="card",
    title="a card",
    source="these tests",
    physical=PHYSICAL,
    virtual=replace(
        PHYSICAL, id=PciId(0x8086, 0x10CA), interrupt_pin=0, capabilities={"aer": AER}
    ),
    sriov=SriovProfile(8, 7, 0x80, 2, 0x10CA, EnableRule.ANY),
    driver="igb",
    defects=(Defect("the mask", "a book", "physical.aer_masked"), Defect("the smell", "a nose")),
    stand_in=StandIn("igb"),
)

numbers = st.integers(0, 0xFFFF)
OTHER: Mapping[str, st.SearchStrategy[object]] = {
    "id": st.builds(PciId, numbers, numbers),
    "class_code": st.integers(0, 0xFFFFFF),
    "bars": st.dictionaries(
        st.integers(0, 5),
        st.builds(
            BarShape, st.sampled_from([16, 4096, 0x4000, 0x20000]), st.sampled_from(BarKind),
            st.booleans(),
        ),
        max_size=4,
    ),
    "rom": st.sampled_from([1 << n for n in range(11, 25)]),
    "interrupt_pin": st.integers(0, 4),
    "msi": st.sampled_from([0, 1, 2, 4, 32]),
    "msix": st.integers(0, 2048),
    "flr": st.booleans(),
    "reset": st.lists(st.sampled_from(["flr", "pm", "bus"]), max_size=3, unique=True).map(tuple),
    # A mask that asks for a bit which is not set; fewer bits than are set is no demand.
    "aer_masked": st.integers(0, 31).filter(lambda n: not MASK >> n & 1).map(lambda n: 1 << n),
    "capabilities": st.dictionaries(
        st.sampled_from(sorted(EXTENDED)), st.integers(0x200, 0xFF0), min_size=1, max_size=3
    ),
    "total": numbers,
    "driver_total": numbers,
    "first_offset": numbers,
    "stride": numbers,
    "device": numbers,
    "enable": st.just(EnableRule.ALL_OR_NONE),
}  # fmt: skip
"""Other values of each field that is judged."""
JUDGED = [
    (where, one.name)
    for where, kind in (
        ("physical", FunctionProfile), ("virtual", FunctionProfile), ("sriov", SriovProfile)
    )
    for one in dataclasses.fields(kind)
]  # fmt: skip
FOR_PEOPLE = {"name", "title", "source", "driver", "defects", "stand_in"}


def answers(profile: DeviceProfile, seen: SeenDevice = SEEN) -> dict[str, Answer]:
    return {one.item: one.answer for one in check(profile, seen)}


def changed(where: str, field: str, value: object) -> DeviceProfile:
    part = replace(getattr(PROFILE, where), **{field: value})
    return replace(PROFILE, **{where: part})


def test_a_device_that_is_as_its_profile_says_holds_in_every_item() -> None:
    found = answers(PROFILE)

    assert set(found.values()) == {Answer.HOLDS}
    # One for each field, and the places of the virtual functions.
    assert len(found) == len(JUDGED) + 1


@pytest.mark.parametrize(("where", "field"), JUDGED)
@given(data=st.data())
def test_every_field_that_is_changed_is_reported(
    where: str, field: str, data: st.DataObject
) -> None:
    now = getattr(getattr(PROFILE, where), field)
    value = data.draw(OTHER[field].filter(lambda value: value != now))

    found = answers(changed(where, field, value))

    assert found[f"{where}.{field}"] is Answer.DIFFERS


def test_every_field_is_judged_or_for_people() -> None:
    assert {one.name for one in dataclasses.fields(DeviceProfile)} == FOR_PEOPLE | {
        where for where, _ in JUDGED
    }
    assert {one.name for one in FUNCTION_FIELDS} == {
        one.name for one in dataclasses.fields(FunctionProfile)
    }
    assert {name for _, name in JUDGED} == set(OTHER)


@pytest.mark.parametrize(("where", "field"), JUDGED)
def test_what_a_profile_does_not_say_is_not_judged(where: str, field: str) -> None:
    assert f"{where}.{field}" not in answers(changed(where, field, None))


@pytest.mark.parametrize("number", range(2))
def test_one_virtual_function_that_differs_is_named(number: int) -> None:
    virtual = list(SEEN.virtual)
    odd = replace(virtual[number].function, msix=None)
    virtual[number] = replace(virtual[number], function=odd)

    (found,) = (
        one
        for one in check(PROFILE, replace(SEEN, virtual=tuple(virtual)))
        if one.answer is not Answer.HOLDS
    )

    assert (found.item, found.found) == ("virtual.msix", f"0 at {odd.bdf}")


def test_a_virtual_function_in_another_place_is_reported() -> None:
    moved = replace(SEEN.virtual[1].function, bdf=Bdf.parse("03:10.1"))
    virtual = (SEEN.virtual[0], SeenFunction(moved, ("flr", "bus")))

    found = answers(PROFILE, replace(SEEN, virtual=virtual))

    assert [item for item, answer in found.items() if answer is not Answer.HOLDS] == [
        "sriov.places"
    ]


@pytest.mark.parametrize(("most", "answer"), [(2, Answer.HOLDS), (7, Answer.DIFFERS)])
def test_all_or_none_means_as_many_as_the_driver_makes(most: int, answer: Answer) -> None:
    profile = changed("sriov", "enable", EnableRule.ALL_OR_NONE)

    assert answers(profile, replace(SEEN, driver_total=most))["sriov.enable"] is answer


def test_mask_bits_beyond_those_that_are_wanted_are_no_fault() -> None:
    assert answers(changed("physical", "aer_masked", 1 << 14))["physical.aer_masked"] is (
        Answer.HOLDS
    )


def test_without_virtual_functions_the_reason_is_told() -> None:
    found = check(PROFILE, SeenDevice(SEEN.physical, driver_total=7, why_no_virtual="none made"))

    virtual = [one for one in found if one.item.startswith("virtual.")]
    assert len(virtual) == len(FUNCTION_FIELDS)
    assert {(one.answer, one.found) for one in virtual} == {(Answer.UNASKED, "none made")}
    assert {one.item: one.found for one in found}["sriov.places"] == "none made"


@pytest.mark.parametrize("size", [64, 256])
def test_configuration_space_that_is_cut_off_is_not_judged(size: int) -> None:
    assert SEEN.physical is not None
    short = replace(SEEN.physical.function, config=SEEN.physical.function.config[:size])

    found = answers(PROFILE, replace(SEEN, physical=SeenFunction(short, ("flr", "bus"))))

    unasked = {item for item, answer in found.items() if answer is Answer.UNASKED}
    extended = {"physical.aer_masked", "physical.capabilities"}
    extended |= {f"sriov.{name}" for name in ("total", "first_offset", "stride", "device")}
    header = {"physical.msi", "physical.msix", "physical.flr"} if size == 64 else set()
    assert unasked == extended | header
    assert Answer.DIFFERS not in found.values()


def test_a_kernel_without_reset_method_and_a_function_without_the_attribute_are_told() -> None:
    assert SEEN.physical is not None
    seen = replace(SEEN, physical=SeenFunction(SEEN.physical.function), driver_total=None)

    found = answers(PROFILE, seen)

    assert found["physical.reset"] is Answer.UNASKED
    assert found["sriov.driver_total"] is Answer.UNASKED


def test_models_that_nothing_joins_are_not_asked_for_their_places() -> None:
    found = answers(PROFILE, replace(SEEN, standalone=True))

    assert found["sriov.places"] is found["sriov.enable"] is Answer.UNASKED
    assert found["virtual.msix"] is Answer.HOLDS


def test_a_defect_is_told_with_the_item_that_shows_it() -> None:
    shown = {one.item: one.defects for one in check(PROFILE, SEEN) if one.defects}

    assert list(shown) == ["physical.aer_masked"]
    assert shown["physical.aer_masked"][0].text == "the mask"


def test_items_are_those_that_are_judged() -> None:
    assert items(PROFILE) == tuple(answers(PROFILE))


@pytest.mark.parametrize(
    ("size", "text"), [(32, "32"), (1024, "1K"), (128 << 10, "128K"), (4 << 20, "4M"), (0, "0")]
)
def test_sizes_are_told_in_the_largest_unit(size: int, text: str) -> None:
    assert size_text(size) == text
