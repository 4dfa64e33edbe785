"""Following VT-d tables that lie in a dictionary."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.model.pci import Bdf
from harness.model.vtd.tables import Stage, Translation, translation_of

ROOT, CONTEXT, OTHER_CONTEXT, DIRECTORY, PASIDS, PAGES = (n << 12 for n in range(1, 7))
SCALABLE = 1 << 10
FUNCTION = Bdf(0, 2, 3, 1)
DEVFN = 3 << 3 | 1


def found(words: dict[int, int], root_table: int = ROOT) -> Translation | None:
    return translation_of(lambda address: words.get(address, 0), root_table, FUNCTION)


def legacy(low: int, high: int) -> dict[int, int]:
    return {ROOT + 32: CONTEXT | 1, CONTEXT + 16 * DEVFN: low, CONTEXT + 16 * DEVFN + 8: high}


def scalable(entry: int, *, context: int = DIRECTORY | 1, pasid: int = 0) -> dict[int, int]:
    place = PASIDS + 64 * (pasid & 63)
    return {
        ROOT + 32: CONTEXT | 1,
        CONTEXT + 32 * DEVFN: context,
        CONTEXT + 32 * DEVFN + 8: pasid,
        DIRECTORY + 8 * (pasid >> 6): PASIDS | 1,
        place: entry,
        place + 16: PAGES,
    }


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (PAGES | 1, 0x102, Translation(False, Stage.SECOND, 4)),
        (PAGES | 1, 0x701, Translation(False, Stage.SECOND, 3)),
        (PAGES | 1 << 2 | 1, 2, Translation(False, Stage.SECOND, 4, device_tlb=True)),
        (2 << 2 | 1, 2, Translation(False, Stage.NONE, 0)),
        (PAGES, 2, None),
    ],
)
def test_legacy_entries(low: int, high: int, expected: Translation | None) -> None:
    assert found(legacy(low, high)) == expected


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (PAGES | 2 << 6 | 2 << 2 | 1, Translation(True, Stage.SECOND, 4)),
        (PAGES | 2 << 6 | 1 << 2 | 1, Translation(True, Stage.SECOND, 3)),
        (1 << 6 | 1, Translation(True, Stage.FIRST, 4)),
        (4 << 6 | 1, Translation(True, Stage.NONE, 0)),
        (PAGES | 3 << 6 | 2 << 2 | 1, Translation(True, Stage.NESTED, 4)),
        (1 << 6, None),
    ],
)
def test_scalable_entries(entry: int, expected: Translation | None) -> None:
    assert found(scalable(entry), ROOT | SCALABLE) == expected


@given(st.integers(0, (1 << 20) - 1))
def test_the_function_has_a_pasid_of_its_own(pasid: int) -> None:
    words = scalable(1 << 6 | 1, context=DIRECTORY | 4 | 1, pasid=pasid)

    assert found(words, ROOT | SCALABLE) == Translation(True, Stage.FIRST, 4, device_tlb=True)


def test_the_upper_half_of_a_bus_has_its_own_table() -> None:
    words = {ROOT + 8: OTHER_CONTEXT | 1, OTHER_CONTEXT: DIRECTORY | 1,
             DIRECTORY: PASIDS | 1, PASIDS: 4 << 6 | 1}  # fmt: skip

    upper = translation_of(lambda at: words.get(at, 0), ROOT | SCALABLE, Bdf(0, 0, 16, 0))
    lower = translation_of(lambda at: words.get(at, 0), ROOT | SCALABLE, Bdf(0, 0, 0, 0))

    assert (upper, lower) == (Translation(True, Stage.NONE, 0), None)


@pytest.mark.parametrize("missing", range(4))
def test_an_entry_that_is_missing_is_no_translation(missing: int) -> None:
    words = scalable(1 << 6 | 1)
    del words[[ROOT + 32, CONTEXT + 32 * DEVFN, DIRECTORY, PASIDS][missing]]

    assert found(words, ROOT | SCALABLE) is None


def test_no_tables_are_no_translation() -> None:
    assert found({}) is None


def test_it_is_told_in_words() -> None:
    assert str(Translation(True, Stage.FIRST, 4)) == "scalable mode, first stage, 4 levels"
    assert str(Translation(False, Stage.SECOND, 3, True)).endswith("3 levels, device-TLB")
