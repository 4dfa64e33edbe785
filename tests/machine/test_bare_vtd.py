"""The unit that is set up by hand, against memory that lives in a dictionary."""

from __future__ import annotations

from typing import cast

import pytest

from harness.errors import ConfigError
from harness.machine.bare_vtd import BareVtd
from harness.machine.qtest import Qtest
from harness.model.pci import Bdf
from harness.model.vtd.registers import REGISTERS_BASE
from harness.model.vtd.tables import Stage, Translation, translation_of

FUNCTION = Bdf(0, 1, 2, 3)
TABLES = 0x80_0000


class FakeQtest:
    """Words of memory, and commands of the unit."""

    def __init__(self) -> None:
        self.words: dict[int, int] = {}
        self.commands: list[int] = []

    def write(self, address: int, value: int, width: int = 4) -> None:
        if address == REGISTERS_BASE + 0x18:
            self.commands.append(value)
        self.words[address] = value

    def run(self, commands: list[str]) -> list[str]:
        for command in commands:
            word, address, value = command.split()
            assert word == "writeq"
            self.words[int(address, 16)] = int(value, 16)
        return ["" for _ in commands]

    def read(self, address: int) -> int:
        return self.words.get(address, 0)

    def walk(self, iova: int, root: int) -> int:
        """Return what the tables say of *iova*, as hardware would."""
        table = root
        for shift in (39, 30, 21, 12):
            entry = self.read(table + 8 * (iova >> shift & 0x1FF))
            if not entry & 3:
                return 0
            table = entry & ~0xFFF
        return table


def unit() -> tuple[BareVtd, FakeQtest]:
    fake = FakeQtest()
    return BareVtd(cast(Qtest, fake), TABLES), fake


@pytest.mark.parametrize("device_tlb", [False, True])
def test_a_function_is_attached_by_four_levels(device_tlb: bool) -> None:
    bare, fake = unit()

    bare.attach(FUNCTION, device_tlb=device_tlb)
    bare.enable()

    root = fake.words[REGISTERS_BASE + 0x20]
    assert translation_of(fake.read, root, FUNCTION) == Translation(
        False, Stage.SECOND, 4, device_tlb
    )
    assert translation_of(fake.read, root, Bdf(0, 1, 2, 2)) is None


def test_pages_are_mapped_where_they_are_told() -> None:
    bare, fake = unit()
    bare.attach(FUNCTION)
    bare.map(0x18_0000, 0x58_0000, 2)
    root = fake.read(TABLES + 0x1000 + 16 * (2 << 3 | 3)) & ~0xFFF

    found = [fake.walk(iova, root) for iova in (0x17_F000, 0x18_0000, 0x18_1000, 0x18_2000)]

    assert found == [0, 0x58_0000, 0x58_1000, 0]


@pytest.mark.parametrize(
    ("iova", "physical", "count"),
    [(0x20_0000, 0, 1), (0x1F_F000, 0, 2), (0x800, 0, 1), (0, 0x10, 1), (-0x1000, 0, 1)],
)
def test_what_the_last_table_does_not_hold_is_refused(
    iova: int, physical: int, count: int
) -> None:
    bare, _ = unit()

    with pytest.raises(ConfigError, match=r"no .* pages below"):
        bare.map(iova, physical, count)


def test_the_queue_is_on_before_translation_and_stays_on() -> None:
    bare, fake = unit()

    bare.enable()

    assert fake.commands == [1 << 30, 1 << 26, 1 << 26 | 1 << 31]


def test_invalidations_are_queued_one_after_the_other() -> None:
    bare, fake = unit()
    bare.enable()
    queue = fake.words[REGISTERS_BASE + 0x90]

    bare.invalidate(0x5000)
    bare.invalidate_device(FUNCTION, 0x6000)

    said = [fake.words[queue + 8 * n] for n in range(4)]
    assert [low & 0xF for low in said[::2]] == [2, 3]
    assert said[1::2] == [0x5000, 0x6000]
    assert said[2] >> 32 == FUNCTION.source_id
    assert fake.words[REGISTERS_BASE + 0x88] == 0x20
