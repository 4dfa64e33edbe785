"""Masking vectors of a function whose memory and configuration space are dictionaries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from harness.guest.msix import Msix
from harness.guest.system import System
from harness.model.pci import Bdf, MsixCapability

BDF = Bdf.parse("0000:01:00.0")
CAPABILITY = MsixCapability(
    offset=0x40, vectors=65, table_bar=0, table_offset=0x2000, pba_bar=0, pba_offset=0x3000
)


@dataclass
class Function:
    """Does what ``probe mem`` and ``probe config`` are told."""

    memory: dict[int, int] = field(default_factory=dict)
    control: int = 0x8040
    """Message Control: enabled, 65 vectors."""

    def resource_file(self, bdf: Bdf, bar: int) -> str:
        return f"{bdf}/{bar}"

    def probe(self, kind: str, verb: str, where: str, offset: int, *rest: Any) -> dict[str, str]:
        value: Any = rest[rest.index("--value") + 1] if "--value" in rest else None
        if kind == "config":
            assert (where, offset) == (str(BDF), 0x42)
            self.control = self.control if value is None else value
            return {"last": f"{self.control:#06x}"}
        assert where == f"{BDF}/0"
        if verb == "words":
            words = [self.memory.get(offset + 4 * n, 0) for n in range(rest[0])]
            return {"words": ",".join(f"{word:08x}" for word in words)}
        self.memory[offset] = value
        return {}


def msix(function: Function) -> Msix:
    return Msix(cast(System, cast(Any, function)), BDF, CAPABILITY)


def test_mask_bit_of_a_vector_is_in_its_entry_and_put_back() -> None:
    function = Function()

    with msix(function).vector_masked(3):
        assert function.memory == {0x203C: 1}

    assert function.memory == {0x203C: 0}


def test_function_mask_leaves_the_rest_of_message_control_alone() -> None:
    function = Function()

    with msix(function).function_masked():
        assert function.control == 0xC040

    assert function.control == 0x8040


def test_pending_bits_are_counted_through_all_words() -> None:
    function = Function({0x3000: 0b10, 0x3004: 1 << 31, 0x3008: 1})

    assert msix(function).pending() == {1, 63, 64}


def test_nothing_pending_is_an_empty_set() -> None:
    assert msix(Function()).pending() == frozenset()
