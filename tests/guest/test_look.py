"""What of a device is looked at, and that nothing is changed by it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import cast

import pytest

from harness.errors import MissingDevice
from harness.guest.look import look
from harness.guest.system import System
from harness.guest.transport import Completed
from harness.model.pci import Bdf, PciFunction, PciId
from harness.model.profile import DeviceProfile, FunctionProfile

PF, VF = PciId(0x8086, 0x10C9), PciId(0x8086, 0x10CA)
PROFILE = DeviceProfile(
    "card", "a card", "these tests", FunctionProfile(id=PF), FunctionProfile(id=VF)
)
PHYSICAL = PciFunction(Bdf.parse("03:00.0"), PF, 0x020000, config=b"\x86\x80\xc9\x10")
VIRTUAL = [
    PciFunction(Bdf.parse(bdf), VF, 0x020000, config=b"\xff" * 4) for bdf in ("03:10.0", "03:10.2")
]


@dataclass
class Box:
    """A system with these functions; the first *enabled* are virtual ones of the physical."""

    there: list[PciFunction]
    enabled: int = 0
    attributes: dict[str, str] = field(default_factory=lambda: {"sriov_totalvfs": "7\n"})
    name: str = "box"

    def functions(self) -> tuple[PciFunction, ...]:
        return tuple(self.there)

    def function(self, bdf: Bdf) -> PciFunction:
        return next(one for one in self.there if one.bdf == bdf)

    def exists(self, path: str) -> bool:
        return path.rpartition("/")[2] in self.attributes

    def read_text(self, path: str) -> str:
        return self.attributes[path.rpartition("/")[2]]

    def write_text(self, path: str, text: str) -> None:
        raise AssertionError(f"look writes {text} to {path}")

    def run(self, command: str) -> Completed:
        links = "".join(f"../{one.bdf}\n" for one in VIRTUAL[: self.enabled])
        return Completed(command, 0, links, "")

    def reset_methods(self, bdf: Bdf) -> tuple[str, ...]:
        return ("flr", str(bdf))


def as_system(box: Box) -> System:
    return cast(System, box)


def test_the_physical_function_and_its_virtual_ones_are_seen() -> None:
    seen = look(as_system(Box([PHYSICAL, *VIRTUAL], enabled=2)), PROFILE)

    assert seen.physical is not None
    assert seen.physical.function is PHYSICAL
    assert seen.physical.reset == ("flr", "0000:03:00.0")
    assert [one.function.bdf for one in seen.virtual] == [one.bdf for one in VIRTUAL]
    assert (seen.driver_total, seen.standalone) == (7, False)


def test_without_virtual_functions_it_is_said_how_to_get_some() -> None:
    seen = look(as_system(Box([PHYSICAL])), PROFILE)

    assert seen.virtual == ()
    assert "sriov_numvfs of 0000:03:00.0" in seen.why_no_virtual


def test_a_function_without_the_attribute_has_no_virtual_ones() -> None:
    seen = look(as_system(Box([PHYSICAL], attributes={})), PROFILE)

    assert (seen.driver_total, seen.why_no_virtual) == (None, "the function has no SR-IOV here")


def test_where_a_guest_has_a_virtual_function_only_that_is_seen() -> None:
    seen = look(as_system(Box([VIRTUAL[0]])), PROFILE)

    assert seen.physical is None and seen.standalone
    assert "virtual functions only" in seen.why_no_physical
    assert [one.function for one in seen.virtual] == [VIRTUAL[0]]


def test_an_address_is_taken_whatever_the_id_is() -> None:
    other = replace(PHYSICAL, id=PciId(1, 2))

    seen = look(as_system(Box([other])), PROFILE, other.bdf)

    assert seen.physical is not None and seen.physical.function is other


def test_a_virtual_function_with_the_id_of_the_physical_one_is_not_taken_for_it() -> None:
    alike = [replace(one, id=PF) for one in VIRTUAL]

    seen = look(as_system(Box([*alike, PHYSICAL])), PROFILE)

    assert seen.physical is not None and seen.physical.function is PHYSICAL


@pytest.mark.parametrize("bdf", [None, Bdf.parse("09:00.0")])
def test_a_system_without_it_is_told(bdf: Bdf | None) -> None:
    with pytest.raises(MissingDevice, match=r"box has no (function at 0000:09|8086:10c9)"):
        look(as_system(Box([])), PROFILE, bdf)
